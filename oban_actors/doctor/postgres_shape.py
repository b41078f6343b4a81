"""The tables on PostgreSQL, against what the migrations make."""

from collections.abc import Iterator

from oban_actors.doctor.exam import Exam, identifier, literal
from oban_actors.doctor.finding import Finding
from oban_actors.doctor.manifest import OWN, Column, Shape, Table, describe, expected
from oban_actors.repo.migrator import OWN_VERSION

_NOT_VALID = " NOT VALID"


def check(exam: Exam) -> Iterator[Finding]:
    """Compare tables, columns, types, checks and indexes."""
    wanted = expected(exam.facts.version)
    if wanted is None:
        return
    prefix = exam.config.prefix
    found = exam.read(lambda connection: describe(connection, prefix, exam.schema))
    for finding in compare(wanted, found, own=exam.facts.own_version == OWN_VERSION):
        fix = finding.fix.replace("{schema}.", exam.schema)
        yield Finding(finding.severity, finding.code, finding.what, fix)


def compare(wanted: Shape, found: Shape, *, own: bool = True) -> Iterator[Finding]:
    """Compare what should be with what is; more than should be is no fault.

    Args:
        wanted: what should be.
        found: what is.
        own: whether the library's own tables have the version that they should have.

    """
    yield from _compare_states(wanted.states, found.states)
    for name, table in wanted.tables.items():
        if name.startswith(OWN) and not own:
            continue
        if name in found.tables:
            yield from _compare_table(name, table, found.tables[name])
        else:
            what = f"there is no table {name}"
            yield Finding("error", "missing_table", what, _create(name, table))


def _compare_states(wanted: tuple[str, ...], found: tuple[str, ...]) -> Iterator[Finding]:
    for state, following in zip(wanted, (*wanted[1:], None), strict=True):
        if state in found:
            continue
        place = f" BEFORE {literal(following)}" if following in found else ""
        fix = f"ALTER TYPE {{schema}}.oban_job_state ADD VALUE {literal(state)}{place};"
        yield Finding("error", "missing_state", f"jobs can't have the state {state!r}", fix)


def _compare_table(name: str, wanted: Table, found: Table) -> Iterator[Finding]:
    for key, column in wanted.columns.items():
        if key in found.columns:
            yield from _compare_column(name, key, column, found.columns[key])
        else:
            fix = f"{_alter(name)} ADD COLUMN {_column(key, column)};"
            yield Finding("error", "missing_column", f"{name} has no column {key}", fix)
    if found.partitioned:
        # Its keys and indexes are those of whoever partitioned it.
        return
    yield from _compare_constraints(name, wanted.constraints, found.constraints)
    yield from _compare_indexes(wanted, found, name)


def _compare_column(table: str, key: str, wanted: Column, found: Column) -> Iterator[Finding]:
    place = f"{table}.{key}"
    alter = f"{_alter(table)} ALTER COLUMN {key}"
    if found.type != wanted.type:
        what = f"{place} is of type {_plain(found.type)} instead of {_plain(wanted.type)}"
        fix = f"{alter} TYPE {wanted.type} USING {key}::{wanted.type};"
        yield Finding("error", "column_type", what, fix)
    if found.default != wanted.default:
        shown = _plain(wanted.default or "none")
        what = f"{place} has the default {_plain(found.default or 'none')} instead of {shown}"
        change = "DROP DEFAULT" if wanted.default is None else f"SET DEFAULT {wanted.default}"
        yield Finding("error", "column_default", what, f"{alter} {change};")
    if found.required != wanted.required:
        what = f"{place} may be NULL" if wanted.required else f"{place} may not be NULL"
        change = "SET" if wanted.required else "DROP"
        yield Finding("warning", "column_null", what, f"{alter} {change} NOT NULL;")


def _compare_constraints(
    table: str, wanted: dict[str, str], found: dict[str, str]
) -> Iterator[Finding]:
    for name, definition in wanted.items():
        add = f"{_alter(table)} ADD CONSTRAINT {name} {definition};"
        if name not in found:
            if definition in found.values():
                continue
            what = f"{table} lacks the constraint {name}: {definition}"
            yield Finding("warning", "missing_constraint", what, add)
        elif _checked(found[name]) != _checked(definition):
            what = f"the constraint {name} of {table} is {found[name]} instead of {definition}"
            fix = f"{_alter(table)} DROP CONSTRAINT {name};\n{add}"
            yield Finding("warning", "constraint", what, fix)


def _compare_indexes(wanted: Table, found: Table, table: str) -> Iterator[Finding]:
    for name in sorted(found.invalid):
        what = f"the index {name} of {table} is invalid: it costs writes and serves no reader"
        drop = f"DROP INDEX CONCURRENTLY {{schema}}.{identifier(name)};"
        build = f"\n{_build(wanted.indexes[name])}" if name in wanted.indexes else ""
        if name in wanted.constraints:
            drop, build = f"REINDEX INDEX CONCURRENTLY {{schema}}.{name};", ""
        yield Finding("warning", "invalid_index", what, drop + build)
    for name, definition in wanted.indexes.items():
        if name in found.invalid:
            continue
        if name not in found.indexes:
            what = f"{table} lacks the index {name}"
            yield Finding("warning", "missing_index", what, _build(definition))
        elif found.indexes[name] != definition:
            what = (
                f"the index {name} of {table} is {_plain(found.indexes[name])} "
                f"instead of {_plain(definition)}"
            )
            fix = f"DROP INDEX CONCURRENTLY {{schema}}.{name};\n{_build(definition)}"
            yield Finding("warning", "index", what, fix)


# SQL


def _alter(table: str) -> str:
    return f"ALTER TABLE {{schema}}.{table}"


def _column(key: str, column: Column) -> str:
    default = "" if column.default is None else f" DEFAULT {column.default}"
    return f"{key} {column.type}{default}{' NOT NULL' if column.required else ''}"


def _create(name: str, table: Table) -> str:
    parts = [_column(key, column) for key, column in table.columns.items()]
    parts += [f"CONSTRAINT {key} {each}" for key, each in table.constraints.items()]
    body = ",\n".join(f"  {part}" for part in parts)
    return "\n".join(
        [
            f"CREATE TABLE {{schema}}.{name} (\n{body}\n);",
            *(f"{definition};" for definition in table.indexes.values()),
        ]
    )


def _build(definition: str) -> str:
    return f"{definition.replace(' INDEX ', ' INDEX CONCURRENTLY ', 1)};"


def _checked(definition: str) -> str:
    # Elixir's migrations leave one unchecked for old rows.
    return definition.removesuffix(_NOT_VALID)


def _plain(sql: str) -> str:
    return sql.replace("{schema}.", "")
