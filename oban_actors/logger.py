"""A ready-made logger: what matters of the telemetry, on the standard library's logging."""

import json
import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from oban_actors import telemetry
from oban_actors.validation import OPTIONS

Level = Literal["debug", "info", "warning", "error", "critical"]
Category = Literal["job", "notifier", "peer", "plugin", "queue", "stager"]
Fields = dict[str, Any]
Describe = Callable[[Mapping[str, Any], Mapping[str, Any]], Fields | None]

_HANDLER_ID = "oban-default-logger"
_JOB_FIELDS = ("attempt", "id", "max_attempts", "meta", "queue", "tags", "worker")
_SPAN_CONTEXT = "telemetry_span_context"
_STATUSES = {
    "isolated": "notifier can't receive messages from any nodes, functionality degraded",
    "solitary": "notifier only receiving messages from its own node, functionality may be degraded",
    "clustered": "notifier is receiving messages from other nodes",
}
_MODES = {
    "local": "job staging switched to local mode. local mode polls for jobs for every queue; "
    "restore global mode with a functional notifier",
    "global": "job staging switched back to global mode",
}
_ORPHANED = "jobs were orphaned because they didn't finish executing in the allotted time"

_logger = logging.getLogger("oban_actors")


def attach_default_logger(
    level: Level = "info",
    encode: bool = True,  # noqa: FBT001, FBT002 (named as in Oban)
    events: Literal["all"] | Iterable[Category] = "all",
    name: str | None = None,
    *,
    args: bool = False,
) -> None:
    """Log what happens to the logger `oban_actors`. Mirrors Oban's default logger.

    Durations are in microseconds. A plugin's run is logged if it did something or failed.

    Args:
        level: of all records, default `info`.
        encode: whether a record's message is one line of JSON (default) or a dict.
        events: `all` (default), or some of job, notifier, peer, plugin, queue and stager.
        name: of the only instance whose events are logged, default: all instances.
        args: whether the arguments of jobs are logged, which may be secret, but for what their
            workers redact; default False.

    Raises:
        ConfigError: an argument can't be used.
        ValueError: this logger is attached.

    """
    number = logging.getLevelNamesMapping()[OPTIONS.one_of("level", level, get_args(Level)).upper()]
    if name is not None and not isinstance(name, str):
        raise OPTIONS.refusal("name", "a string or None", name)
    output = _Output(number, OPTIONS.boolean("encode", encode), name, OPTIONS.boolean("args", args))
    wanted = _categories(events)
    heard = [event for event, (short, _) in _EVENTS.items() if short.split(":")[0] in wanted]
    telemetry.attach_many(_handler_id(name), heard, output)


def detach_default_logger(name: str | None = None) -> bool:
    """Stop logging.

    Args:
        name: what the logger was attached with.

    Returns:
        Whether it was attached.

    """
    return telemetry.detach(_handler_id(name))


@dataclass(frozen=True, slots=True)
class _Output:
    """The telemetry handler."""

    level: int
    encode: bool
    name: str | None
    args: bool

    def __call__(
        self, event: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        if not _logger.isEnabledFor(self.level) or not self._concerns(metadata):
            return
        name, describe = _EVENTS[event]
        told = describe(measurements, metadata)
        if told is None:
            return
        fields = {"source": "oban", "event": name, **told}
        if self.args and "args" in metadata:
            fields["args"] = metadata["args"]
        _logger.log(self.level, json.dumps(fields, default=_plain) if self.encode else fields)

    def _concerns(self, metadata: Mapping[str, Any]) -> bool:
        return self.name is None or getattr(metadata.get("conf"), "name", None) == self.name


# Helpers


def _handler_id(name: str | None) -> str:
    return _HANDLER_ID if name is None else f"{_HANDLER_ID}-{name}"


def _categories(events: object) -> list[str]:
    known = get_args(Category)
    if events == "all":
        return list(known)
    given = list(events) if isinstance(events, Iterable) and not isinstance(events, str) else []
    if not given:
        raise OPTIONS.refusal("events", "'all' or a list of categories", events)
    return [OPTIONS.one_of("events", each, known) for each in given]


def _job_start(measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields:
    return {**_job(metadata), "system_time": measurements.get("system_time")}


def _job_stop(measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields:
    return {
        **_job(metadata),
        "duration": _micros(measurements.get("duration")),
        "queue_time": _micros(measurements.get("queue_time")),
        "state": metadata.get("state"),
    }


def _job_exception(measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields:
    return {**_job_stop(measurements, metadata), "error": _error(metadata)}


def _notifier_switch(_: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields | None:
    status = str(metadata.get("status"))
    if status not in _STATUSES:
        return None
    return {"connectivity_status": status, "message": _STATUSES[status]}


def _peer_election(_: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields | None:
    leader, was_leader = bool(metadata.get("leader")), bool(metadata.get("was_leader"))
    if leader == was_leader:
        return None
    return {
        "leader": leader,
        "message": "peer became leader" if leader else "peer is no longer leader",
        "node": getattr(metadata.get("conf"), "node", None),
        "was_leader": was_leader,
    }


def _plugin_stop(measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields | None:
    counts = {k: v for k, v in metadata.items() if isinstance(v, int) and k != _SPAN_CONTEXT}
    failed = metadata.get("error") is not None
    if not failed and not any(v for v in counts.values() if not isinstance(v, bool)):
        return None
    error = {"error": _error(metadata)} if failed else {}
    return {**_plugin(measurements, metadata), **counts, **error}


def _plugin_exception(measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields:
    return {**_plugin(measurements, metadata), "error": _error(metadata)}


def _queue_shutdown(measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields | None:
    if not metadata.get("orphaned"):
        return None
    return {
        "elapsed": measurements.get("elapsed"),
        "message": _ORPHANED,
        "orphaned": list(metadata["orphaned"]),
        "queue": metadata.get("queue"),
    }


def _stager_switch(_: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields | None:
    mode = str(metadata.get("mode"))
    return {"message": _MODES[mode], "mode": mode} if mode in _MODES else None


def _job(metadata: Mapping[str, Any]) -> Fields:
    return {name: getattr(metadata.get("job"), name, None) for name in _JOB_FIELDS}


def _plugin(measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> Fields:
    plugin = metadata.get("plugin")
    name = plugin.__name__ if isinstance(plugin, type) else str(plugin)
    return {"plugin": name, "duration": _micros(measurements.get("duration"))}


def _error(metadata: Mapping[str, Any]) -> str:
    return _plain(metadata.get("reason", metadata.get("error")))


def _plain(value: object) -> str:
    if isinstance(value, BaseException):
        return "".join(traceback.format_exception_only(value)).strip()
    return str(value)


def _micros(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None else nanoseconds // 1000


_EVENTS: Mapping[str, tuple[str, Describe]] = {
    "oban.job.start": ("job:start", _job_start),
    "oban.job.stop": ("job:stop", _job_stop),
    "oban.job.exception": ("job:exception", _job_exception),
    "oban.notifier.switch": ("notifier:switch", _notifier_switch),
    "oban.peer.election.stop": ("peer:election", _peer_election),
    "oban.plugin.stop": ("plugin:stop", _plugin_stop),
    "oban.plugin.exception": ("plugin:exception", _plugin_exception),
    "oban.queue.shutdown": ("queue:shutdown", _queue_shutdown),
    "oban.stager.switch": ("stager:switch", _stager_switch),
}
