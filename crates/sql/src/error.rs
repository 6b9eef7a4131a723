//! DataFusion's errors in PostgreSQL's words. All knowledge of how DataFusion phrases things is here.

use datafusion::common::{Diagnostic, SchemaError};
use datafusion::error::DataFusionError;
use millpond_common::{Error, SqlState, conversion};

/// DataFusion's error with PostgreSQL's SQLSTATE and message.
pub fn from_datafusion(error: DataFusionError) -> Error {
    use DataFusionError as D;
    match error {
        D::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => match other.downcast::<DataFusionError>() {
                Ok(nested) => from_datafusion(*nested),
                Err(other) => from_text(&other.to_string(), SqlState::INTERNAL_ERROR),
            },
        },
        D::ArrowError(inner, _) => Error::from(*inner),
        D::SchemaError(inner, _) => from_schema(&inner, None),
        D::Diagnostic(diagnostic, inner) => located(&diagnostic, *inner),
        D::Context(_, inner) => from_datafusion(*inner),
        D::Shared(inner) => from_text(&inner.to_string(), SqlState::INTERNAL_ERROR),
        D::Collection(errors) => match errors.into_iter().next() {
            Some(first) => from_datafusion(first),
            None => Error::internal("an error without a cause"),
        },
        D::SQL(inner, _) => Error::new(SqlState::SYNTAX_ERROR, inner.to_string()),
        D::NotImplemented(message) => from_text(&message, SqlState::FEATURE_NOT_SUPPORTED),
        D::Plan(message) => from_text(&message, SqlState::SYNTAX_ERROR),
        D::Execution(message) => from_text(&message, SqlState::DATA_EXCEPTION),
        D::ResourcesExhausted(message) => Error::new(SqlState::OUT_OF_MEMORY, message),
        D::IoError(inner) => Error::from(inner),
        D::Configuration(message) => Error::new(SqlState::INVALID_PARAMETER_VALUE, message),
        other => from_text(&other.to_string(), SqlState::INTERNAL_ERROR),
    }
}

fn located(diagnostic: &Diagnostic, inner: DataFusionError) -> Error {
    let position = diagnostic.span.map(|s| s.start.column as usize).filter(|p| *p > 0);
    let error = match inner {
        DataFusionError::SchemaError(inner, _) => from_schema(&inner, position),
        other => from_datafusion(other),
    };
    match (error.position(), position) {
        (None, Some(position)) => error.at(position),
        _ => error,
    }
}

fn from_schema(error: &SchemaError, position: Option<usize>) -> Error {
    let error = match error {
        SchemaError::AmbiguousReference { field } => {
            Error::new(SqlState::AMBIGUOUS_COLUMN, format!("column reference \"{}\" is ambiguous", field.name))
        }
        SchemaError::DuplicateQualifiedField { qualifier, name } => {
            Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" of \"{}\" specified more than once", qualifier.table()))
                .with_hint("Give one of them another name with AS.")
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
        }
        SchemaError::FieldNotFound { field, valid_fields } => match &field.relation {
            Some(relation) if !valid_fields.iter().any(|f| f.relation.as_ref().is_some_and(|r| r.table() == relation.table())) => {
                Error::new(SqlState::UNDEFINED_TABLE, format!("missing FROM-clause entry for table \"{}\"", relation.table()))
            }
            Some(relation) => Error::new(SqlState::UNDEFINED_COLUMN, format!("column {}.{} does not exist", relation.table(), field.name)),
            None => {
                let error = Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{}\" does not exist", field.name));
                match valid_fields.iter().find(|f| close(&f.name, &field.name)) {
                    Some(near) => {
                        let qualifier = near.relation.as_ref().map(|r| format!("{}.", r.table())).unwrap_or_default();
                        error.with_hint(format!("Perhaps you meant to reference the column \"{qualifier}{}\".", near.name))
                    }
                    None => error,
                }
            }
        },
    };
    match position {
        Some(position) => error.at(position),
        None => error,
    }
}

/// Whether one name could be a slip of the pen for the other: at most a quarter of its letters differ.
fn close(a: &str, b: &str) -> bool {
    datafusion::common::utils::datafusion_strsim::levenshtein(a, b) <= b.len().div_ceil(4).min(3)
}

/// Errors that DataFusion tells by their text only.
fn from_text(message: &str, otherwise: SqlState) -> Error {
    // Our own error, wrapped in a sentence of DataFusion's.
    if let Some(at) = message.rfind("External error: ") {
        let own = message[at + 16..].lines().next().unwrap_or_default();
        const STATES: [&str; 4] = ["42804", "42883", "22023", "22P02"];
        if let Some((text, state)) = STATES.iter().find_map(|s| Some((own.strip_suffix(&format!(" ({s})"))?, *s))) {
            return Error::new(SqlState(state), text);
        }
    }
    // A backtrace or a list of candidates may follow; the first line says it.
    let line = message.lines().next().unwrap_or_default();
    let line = line.strip_prefix("Error during planning: ").unwrap_or(line);
    let lower = line.to_ascii_lowercase();
    let has = |words: &str| lower.contains(words);
    let signature_hint = "No function matches the given name and argument types. You might need to add explicit type casts.";
    if let Some(rest) = line.strip_prefix("Invalid function '") {
        let name = rest.split('\'').next().unwrap_or_default();
        return Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist")).with_hint(signature_hint);
    }
    if let Some(at) = message.find("No function matches the given name and argument types '") {
        let call = message[at..].split('\'').nth(1).unwrap_or_default();
        return Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {} does not exist", sql_types(call))).with_hint(signature_hint);
    }
    if has("failed to match any signature") {
        let name = line.split('\'').nth(1).unwrap_or_default();
        return Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist for these argument types"))
            .with_hint(signature_hint);
    }
    if has("order by column out of bounds") {
        let position = line.split("specified: ").nth(1).and_then(|r| r.split(',').next()).unwrap_or_default();
        return Error::new(SqlState::INVALID_COLUMN_REFERENCE, format!("ORDER BY position {position} is not in select list"));
    }
    if has("aggregate functions are not allowed in the where") {
        return Error::new(SqlState::GROUPING_ERROR, "aggregate functions are not allowed in WHERE").with_hint("Use HAVING.");
    }
    if has("the window ") && has("is not defined") {
        let name = line.split_whitespace().nth(2).unwrap_or_default();
        return Error::new(SqlState::UNDEFINED_OBJECT, format!("window \"{name}\" does not exist"));
    }
    if has("table function '") && has("not found") {
        let name = line.split('\'').nth(1).unwrap_or_default();
        return Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist")).with_hint(signature_hint);
    }
    if (has("failed to coerce arguments")
        || has("function failed to determine")
        || has("failed to unify argument types")
        || has("does not support"))
        && has("function")
    {
        return Error::new(SqlState::UNDEFINED_FUNCTION, sql_types(line)).with_hint(signature_hint);
    }
    if let Some(rest) = line.find("Cannot coerce arithmetic expression ").map(|i| &line[i + 36..]) {
        let rest = rest.split(" to valid types").next().unwrap_or(rest);
        return no_operator(rest);
    }
    if let Some(rest) = line.find("string concat operation ").map(|i| &line[i + 24..]) {
        return no_operator(rest);
    }
    if let Some(rest) = line.find("logical boolean operation ").map(|i| &line[i + 26..]) {
        let op = if rest.contains(" AND ") { "AND" } else { "OR" };
        let of = rest.split(&format!(" {op} ")).find(|t| *t != "Boolean").unwrap_or(rest);
        return not_boolean(op, of);
    }
    if let Some(rest) = line.find("Unary operator 'NOT' requires a boolean expression, got ").map(|i| &line[i + 56..]) {
        return not_boolean("NOT", rest);
    }
    if let Some(rest) = line.find("comparison operation ").map(|i| &line[i + 21..]) {
        return no_operator(rest);
    }
    if has("cannot infer common")
        || has("cannot coerce")
        || has("cannot get result type")
        || has("can't cast")
        || has("cannot automatically convert")
    {
        return Error::new(SqlState::DATATYPE_MISMATCH, sql_types(line)).with_hint("You might need to add explicit type casts.");
    }
    if has("unsupported cast") {
        return Error::new(SqlState("42846"), sql_types(line).replace("Unsupported CAST", "cannot cast type"));
    }
    if has("must be in group by") || has("non-aggregate values") || has("must appear in the group by") || has("references non-aggregate") {
        return grouping(line);
    }
    if has("nested aggregate") || has("aggregate function calls cannot be nested") {
        return Error::new(SqlState::GROUPING_ERROR, "aggregate function calls cannot be nested");
    }
    if has("different number of columns") || has("same number of columns") || has("inputs have different number") {
        return Error::new(SqlState::SYNTAX_ERROR, "each UNION, INTERSECT or EXCEPT query must have the same number of columns");
    }
    if has("inconsistent data length across values") {
        return Error::new(SqlState::SYNTAX_ERROR, "VALUES lists must all be the same length");
    }
    if has("must return exactly one column") || has("should only return one column") || has("subquery must return") || has("single column")
    {
        return Error::new(SqlState::SYNTAX_ERROR, "subquery must return only one column");
    }
    if has("more than one row") {
        return Error::new(SqlState::CARDINALITY_VIOLATION, "more than one row returned by a subquery used as an expression");
    }
    if has("projections require unique expression names") {
        return Error::new(SqlState::DUPLICATE_COLUMN, "two columns of the query have the same name").with_hint("Name them with AS.");
    }
    if has("boolean") && (has("filter predicate") || has("non-boolean")) {
        return Error::new(SqlState::DATATYPE_MISMATCH, "argument of WHERE must be type boolean");
    }
    if has("divide by zero") || has("division by zero") {
        return Error::new(SqlState::DIVISION_BY_ZERO, "division by zero");
    }
    if let Some(own) = conversion::in_words(line) {
        return own;
    }
    if has("overflow") {
        return Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range").with_detail(line.to_string());
    }
    if has("cast error") || has("error parsing") || has("parser error") {
        return Error::new(SqlState::INVALID_TEXT_REPRESENTATION, line.to_string());
    }
    if has("not supported") || has("not implemented") || has("unsupported") || has("not yet implemented") {
        return Error::new(SqlState::FEATURE_NOT_SUPPORTED, sql_types(line));
    }
    Error::new(otherwise, sql_types(line))
}

/// `Utf8 + Int64` as `operator does not exist: text + bigint`
fn no_operator(types: &str) -> Error {
    Error::new(SqlState::UNDEFINED_FUNCTION, format!("operator does not exist: {}", sql_types(types.trim())))
        .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
}

fn not_boolean(op: &str, of: &str) -> Error {
    Error::new(SqlState::DATATYPE_MISMATCH, format!("argument of {op} must be type boolean, not type {}", sql_types(of.trim())))
}

/// DataFusion names the expression that is neither grouped nor aggregated in quotes.
fn grouping(line: &str) -> Error {
    let named = line.split('"').nth(1).or_else(|| line.split('\'').nth(1));
    let message = match named {
        Some(name) => format!("column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function"),
        None => "a column must appear in the GROUP BY clause or be used in an aggregate function".into(),
    };
    Error::new(SqlState::GROUPING_ERROR, message)
}

/// Arrow's type names in a text as SQL's.
fn sql_types(text: &str) -> String {
    const NAMES: [(&str, &str); 22] = [
        ("Timestamp(µs, \"UTC\")", "timestamp with time zone"),
        ("Timestamp(µs)", "timestamp without time zone"),
        ("Timestamp(ns)", "timestamp without time zone"),
        ("Interval(MonthDayNano)", "interval"),
        ("Time64(µs)", "time without time zone"),
        ("LargeUtf8", "text"),
        ("Utf8View", "text"),
        ("Utf8", "text"),
        ("UInt64", "bigint"),
        ("UInt32", "bigint"),
        ("Int64", "bigint"),
        ("Int32", "integer"),
        ("Int16", "smallint"),
        ("Int8", "smallint"),
        ("Float64", "double precision"),
        ("Float32", "real"),
        ("Boolean", "boolean"),
        ("Date32", "date"),
        ("Binary", "bytea"),
        ("Decimal128", "numeric"),
        ("Decimal256", "numeric"),
        ("Null", "unknown"),
    ];
    NAMES.iter().fold(text.to_string(), |text, (arrow, sql)| text.replace(arrow, sql))
}
