"""Names and subscriptions of one instance."""

import threading

from oban_actors.actors.errors import AlreadyRegistered, NoProcess
from oban_actors.actors.messages import Name, Ref


class Registry:
    """Which living actor has which name, and who listens to what.

    A name belongs to one living actor. Once others hear that an actor has ended, its names
    are free or its successor's. Subscriptions stand here and not in whoever delivers, so
    that they outlive its crashes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[Name, Ref] = {}
        self._listeners: dict[str, list[Ref]] = {}

    def register(self, name: Name, ref: Ref) -> None:
        """Give an actor a name.

        Args:
            name: any hashable value.
            ref: the actor.

        Raises:
            AlreadyRegistered: another living actor has it.
            NoProcess: the actor has ended.

        """
        with self._lock:
            if not ref.is_alive():
                raise NoProcess(ref)
            holder = self._names.get(name)
            if holder is not None and holder is not ref and holder.is_alive():
                raise AlreadyRegistered(name, holder)
            self._names[name] = ref

    def whereis(self, name: Name) -> Ref | None:
        """Find the living actor of a name, or None."""
        ref = self._names.get(name)
        return ref if ref is not None and ref.is_alive() else None

    def names(self) -> dict[Name, Ref]:
        """Give all names with their living actors."""
        with self._lock:
            return {name: ref for name, ref in self._names.items() if ref.is_alive()}

    def subscribe(self, channel: str, ref: Ref) -> None:
        """Let an actor hear what comes on a channel; twice is once, an ended one hears nothing.

        Args:
            channel: any name.
            ref: the actor.

        """
        with self._lock:
            if not ref.is_alive():
                return
            listeners = self._listeners.get(channel, [])
            if ref not in listeners:
                self._listeners[channel] = [*listeners, ref]

    def unsubscribe(self, channel: str, ref: Ref) -> None:
        """End a subscription; none is no error.

        Args:
            channel: as in `subscribe`.
            ref: as in `subscribe`.

        """
        with self._lock:
            self._drop_listener(channel, ref)

    def subscribers(self, channel: str) -> list[Ref]:
        """List the living listeners of a channel."""
        return [ref for ref in self._listeners.get(channel, ()) if ref.is_alive()]

    def channels(self) -> set[str]:
        """Name the channels that somebody listens to."""
        with self._lock:
            # A listener of another tree's ends without this registry being told.
            for channel, refs in list(self._listeners.items()):
                for ref in refs:
                    if not ref.is_alive():
                        self._drop_listener(channel, ref)
            return set(self._listeners)

    def forget(self, ref: Ref) -> None:
        """Free the names that are still an ended actor's own, and end its subscriptions."""
        with self._lock:
            for name in [name for name, holder in self._names.items() if holder is ref]:
                del self._names[name]
            for channel in list(self._listeners):
                self._drop_listener(channel, ref)

    def _drop_listener(self, channel: str, ref: Ref) -> None:
        rest = [one for one in self._listeners.get(channel, ()) if one is not ref]
        if rest:
            self._listeners[channel] = rest
        else:
            self._listeners.pop(channel, None)
