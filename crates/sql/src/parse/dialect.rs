//! sqlparser's PostgreSQL, but for one thing: it would read each argument of a function as the name of one first, and then anew, so
//! that calls within calls took twice as long at each level.

use std::any::TypeId;

use sqlparser::ast::Statement;
use sqlparser::dialect::{Dialect as Grammar, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};

/// How a client's text is read.
#[derive(Debug)]
pub(crate) struct Dialect;

macro_rules! as_postgres {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $result { PostgreSqlDialect {}.$name($($arg),*) })*
    };
}

macro_rules! has {
    ($($name:ident)*) => { $(fn $name(&self) -> bool { true })* };
}

impl Grammar for Dialect {
    /// The parser asks for it by type, too.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    as_postgres! {
        fn identifier_quote_style(identifier: &str) -> Option<char>;
        fn is_delimited_identifier_start(ch: char) -> bool;
        fn is_identifier_start(ch: char) -> bool;
        fn is_identifier_part(ch: char) -> bool;
        fn is_reserved_for_identifier(word: Keyword) -> bool;
        fn is_custom_operator_part(ch: char) -> bool;
        fn get_next_precedence(parser: &Parser<'_>) -> Option<Result<u8, ParserError>>;
        fn prec_value(precedence: Precedence) -> u8;
        fn parse_statement(parser: &mut Parser<'_>) -> Option<Result<Statement, ParserError>>;
    }

    // What PostgreSqlDialect has beyond what every dialect has.
    has! {
        supports_unicode_string_literal supports_filter_during_aggregation supports_group_by_expr
        allow_extract_custom allow_extract_single_quotes supports_create_index_with_clause
        supports_explain_with_utility_options supports_listen_notify supports_factorial_operator
        supports_bitwise_shift_operators supports_comment_on supports_load_extension
        supports_named_fn_args_with_colon_operator supports_empty_projections supports_nested_comments
        supports_string_escape_constant supports_numeric_literal_underscores supports_array_typedef_with_brackets
        supports_geometric_types supports_set_names supports_alter_column_type_using supports_notnull_operator
        supports_interval_options supports_insert_table_alias supports_create_table_like_parenthesized
        supports_select_wildcard_with_alias supports_comma_separated_trim supports_xml_expressions
        supports_comment_optimizer_hint
    }
}
