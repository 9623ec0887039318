"""Which SQL the model may run: one SELECT, made only of what is named here.

Everything is an allow-list: kinds of syntax nodes, relations, functions, types. What PostgreSQL
learns to parse later is refused until someone adds it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from pglast import ast, parse_sql
from pglast.enums import SQLValueFunctionOp
from pglast.parser import ParseError

STATEMENT_CHARACTERS = 8_000

SAFE_FUNCTIONS = frozenset(
    [
        "abs", "avg", "bool_and", "bool_or", "btrim", "cardinality", "ceil", "ceiling",
        "char_length", "coalesce", "concat", "concat_ws", "count", "cume_dist", "date_part",
        "date_trunc", "dense_rank", "every", "exp", "extract", "first_value", "floor",
        "greatest", "initcap", "lag", "last_value", "lead", "least", "left", "length", "ln",
        "log", "lower", "ltrim", "max", "min", "mod", "nth_value", "ntile", "now", "nullif",
        "octet_length", "overlay", "percent_rank", "percentile_cont", "percentile_disc",
        "position", "power", "rank", "replace", "reverse", "right", "round", "row_number",
        "rtrim", "sign", "split_part", "sqrt", "starts_with", "stddev", "stddev_pop",
        "stddev_samp", "strpos", "substr", "substring", "sum", "timezone", "to_char",
        "to_date", "to_timestamp", "trim", "trunc", "upper", "var_pop", "var_samp",
        "variance", "age", "array_length",
    ]
)  # fmt: skip
_TYPES = frozenset(
    [
        "bool", "boolean", "int2", "int4", "int8", "smallint", "integer", "bigint",
        "numeric", "decimal", "float4", "float8", "real", "text", "varchar", "bpchar",
        "char", "date", "time", "timetz", "timestamp", "timestamptz", "interval", "uuid",
        "json", "jsonb",
    ]
)  # fmt: skip
_CLOCKS = frozenset(
    value
    for value in SQLValueFunctionOp
    if value.name.startswith(("SVFOP_CURRENT_DATE", "SVFOP_CURRENT_TIME", "SVFOP_LOCALTIME"))
)
_PLAIN = (
    ast.A_ArrayExpr, ast.A_Const, ast.A_Indices, ast.A_Star, ast.Alias, ast.BoolExpr, ast.Boolean,
    ast.BooleanTest, ast.CaseExpr, ast.CaseWhen, ast.CoalesceExpr, ast.ColumnRef, ast.Float,
    ast.GroupingSet, ast.Integer, ast.JoinExpr, ast.MinMaxExpr, ast.NullTest, ast.RangeFunction,
    ast.RangeSubselect, ast.ResTarget, ast.RowExpr, ast.SelectStmt, ast.SortBy, ast.String,
    ast.SubLink, ast.TypeCast, ast.WindowDef,
)  # fmt: skip


class Refused(Exception):
    """The statement is not allowed; the text tells the model what is."""


class Policy:
    """What one role may be asked.

    Args:
        relations: Allowed tables and views as schema.name.
        functions: Allowed besides the safe ones.
    """

    def __init__(self, relations: tuple[str, ...], functions: tuple[str, ...] = ()) -> None:
        self._relations = frozenset(relations)
        self._functions = SAFE_FUNCTIONS | frozenset(functions)
        self._checks: dict[type[Any], Callable[[Any, frozenset[str]], None]] = {
            ast.RangeVar: self._check_relation,
            ast.FuncCall: self._check_function,
            ast.TypeName: _check_type,
            ast.A_Expr: _check_operator,
            ast.A_Indirection: _check_indirection,
            ast.SQLValueFunction: _check_clock,
            ast.WithClause: _check_with,
            ast.CommonTableExpr: _check_cte,
        }

    def check(self, text: str) -> str:
        """Return the statement without what surrounds it.

        Raises:
            Refused: It is not one SELECT over what is allowed.
        """
        if len(text) > STATEMENT_CHARACTERS:
            raise Refused(f"the statement is longer than {STATEMENT_CHARACTERS} characters")
        if "\0" in text:
            raise Refused("the statement has a zero byte")
        try:
            statements = parse_sql(text)
        except (ParseError, RecursionError) as error:
            why = error.args[0] if isinstance(error, ParseError) else "nested too deeply"
            raise Refused(f"not valid SQL: {why}") from error
        if len(statements) != 1:
            raise Refused("give exactly one statement")
        statement = statements[0].stmt
        if not isinstance(statement, ast.SelectStmt):
            raise Refused("only SELECT is allowed")
        nodes = list(_walk(statement))
        ctes = frozenset(str(n.ctename) for n in nodes if isinstance(n, ast.CommonTableExpr))
        for node in nodes:
            if check := self._checks.get(type(node)):
                check(node, ctes)
            elif not isinstance(node, _PLAIN):
                raise Refused(f"{type(node).__name__} is not allowed; use a plain SELECT")
        return _without_end(text)

    def _check_relation(self, node: Any, ctes: frozenset[str]) -> None:
        # Out of its scope a CTE's name finds nothing: the role's search path is empty, and what
        # PostgreSQL adds to it, pg_catalog, has only names that no CTE here may have.
        if node.schemaname is None and node.catalogname is None and node.relname in ctes:
            return
        full = ".".join(p for p in (node.catalogname, node.schemaname, node.relname) if p)
        if node.catalogname or full not in self._relations:
            raise Refused(
                f"relation {full} is not allowed; there are: {', '.join(sorted(self._relations))}"
            )

    def _check_function(self, node: Any, _ctes: frozenset[str]) -> None:
        *schema, name = (part.sval for part in node.funcname)
        if schema not in ([], ["pg_catalog"]) or name not in self._functions:
            raise Refused(f"function {'.'.join([*schema, name])} is not allowed")


def _check_type(node: Any, _ctes: frozenset[str]) -> None:
    *schema, name = (part.sval for part in node.names or ())
    if schema not in ([], ["pg_catalog"]) or name not in _TYPES or node.pct_type or node.setof:
        raise Refused(f"type {'.'.join([*schema, name])} is not allowed")


def _check_operator(node: Any, _ctes: frozenset[str]) -> None:
    if len(node.name) != 1:
        raise Refused("operators with a schema are not allowed")


def _check_indirection(node: Any, _ctes: frozenset[str]) -> None:
    # (x).f is a call of f(x) where x has no field f.
    if any(isinstance(step, ast.String) for step in node.indirection):
        raise Refused("fields of a value, (value).field, are not allowed")


def _check_clock(node: Any, _ctes: frozenset[str]) -> None:
    if node.op not in _CLOCKS:
        raise Refused("of the parameterless functions only the clocks are allowed")


def _check_with(node: Any, _ctes: frozenset[str]) -> None:
    if node.recursive:
        raise Refused("WITH RECURSIVE is not allowed")


def _check_cte(node: Any, _ctes: frozenset[str]) -> None:
    if node.ctename.startswith("pg_"):
        raise Refused(f"choose another name than {node.ctename} in WITH")
    if not isinstance(node.ctequery, ast.SelectStmt):
        raise Refused("only SELECT is allowed in WITH")


def _walk(root: Any) -> Iterator[Any]:
    """Yield every node, without recursion: the model decides how deep they nest."""
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, tuple | list):
            waiting.extend(value)
        elif isinstance(value, ast.Node):
            yield value
            waiting.extend(getattr(value, name) for name in value)


def _without_end(text: str) -> str:
    """Cut the statement's own semicolon and what follows it, which is at most comments."""
    from pglast.parser import scan

    ends = [token.start for token in scan(text) if token.name == "ASCII_59"]
    return text.encode()[: ends[0]].decode() if ends else text
