//! Random queries: every streaming operator over every other one, on columns whose few values meet often.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// What a column holds; operations between columns keep to one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Small integers.
    Int,
    /// Short texts.
    Text,
    /// Numerics with two digits.
    Amount,
    /// Timestamps within some hours.
    Time,
}

/// A relation or a query with its columns.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What stands behind FROM.
    pub from: String,
    /// Names and kinds.
    pub columns: Vec<(String, Kind)>,
}

impl Shape {
    /// A relation with these columns.
    pub fn new(from: &str, columns: &[(&str, Kind)]) -> Shape {
        Shape { from: from.into(), columns: columns.iter().map(|(n, k)| ((*n).to_string(), *k)).collect() }
    }
}

/// Makes queries over some relations.
pub struct Queries<'a> {
    /// What can stand behind FROM.
    pub relations: Vec<Shape>,
    /// Decides everything.
    pub random: &'a mut StdRng,
    names: usize,
}

impl<'a> Queries<'a> {
    /// Over these relations.
    pub fn new(relations: Vec<Shape>, random: &'a mut StdRng) -> Queries<'a> {
        Queries { relations, random, names: 0 }
    }

    /// A query of at most this many nested operators, and its columns.
    pub fn query(&mut self, depth: usize) -> (String, Vec<(String, Kind)>) {
        loop {
            let made = match self.random.random_range(0..10) {
                0 => Some(self.select(depth)),
                1..=3 => self.join(depth),
                4 | 5 => Some(self.aggregate(depth)),
                6 => Some(self.distinct(depth)),
                7 => self.exists(depth),
                8 => Some(self.top_n(depth)),
                _ => self.union(depth),
            };
            if let Some(made) = made {
                return made;
            }
        }
    }

    /// A relation, or a query in brackets, under a new name.
    fn input(&mut self, depth: usize) -> Shape {
        self.names += 1;
        let alias = format!("x{}", self.names);
        if depth == 0 || self.random.random_bool(0.4) {
            let mut shape = self.relations.choose(self.random).expect("there are relations").clone();
            shape.from = format!("{} AS {alias}", shape.from);
            shape.columns = shape.columns.into_iter().map(|(n, k)| (format!("{alias}.{n}"), k)).collect();
            return shape;
        }
        let (sql, columns) = self.query(depth - 1);
        Shape { from: format!("({sql}) AS {alias}"), columns: columns.into_iter().map(|(n, k)| (format!("{alias}.{n}"), k)).collect() }
    }

    fn pick<'b>(&mut self, columns: &'b [(String, Kind)], kind: Kind) -> Option<&'b str> {
        let fit = columns.iter().filter(|(_, k)| *k == kind).collect::<Vec<_>>();
        fit.choose(self.random).map(|(n, _)| n.as_str())
    }

    fn any<'b>(&mut self, columns: &'b [(String, Kind)]) -> &'b (String, Kind) {
        columns.choose(self.random).expect("every shape has columns")
    }

    fn literal(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Int => self.random.random_range(-2..8).to_string(),
            Kind::Text => format!("'{}'", ["a", "b", "c", "ab", ""].choose(self.random).expect("not empty")),
            Kind::Amount => format!("{}.{:02}", self.random.random_range(-3..9), self.random.random_range(0..100)),
            Kind::Time => format!("TIMESTAMP '2026-01-01 0{}:30:00'", self.random.random_range(0..6)),
        }
    }

    /// A condition on columns of one relation or of two.
    fn condition(&mut self, columns: &[(String, Kind)]) -> String {
        let (name, kind) = self.any(columns).clone();
        let literal = self.literal(kind);
        let other = self.pick(columns, kind).unwrap_or(&name).to_string();
        let compare = *["=", "<>", "<", "<=", ">", ">="].choose(self.random).expect("not empty");
        match self.random.random_range(0..8) {
            0 => format!("{name} IS NULL"),
            1 => format!("{name} IS NOT NULL"),
            2 => format!("({name} {compare} {literal} OR {other} IS NULL)"),
            3 => format!("NOT ({name} {compare} {other})"),
            4 => format!("{name} {compare} {other}"),
            5 => format!("coalesce({name}, {literal}) {compare} {literal}"),
            6 => format!("{name} IS DISTINCT FROM {other}"),
            _ => format!("{name} {compare} {literal}"),
        }
    }

    fn filter(&mut self, columns: &[(String, Kind)]) -> String {
        match self.random.random_range(0..4) {
            0 | 1 => String::new(),
            2 => format!(" WHERE {}", self.condition(columns)),
            _ => format!(" WHERE {} AND {}", self.condition(columns), self.condition(columns)),
        }
    }

    /// An expression of one kind over columns.
    fn expression(&mut self, columns: &[(String, Kind)]) -> (String, Kind) {
        let (name, kind) = self.any(columns).clone();
        let sql = match (kind, self.random.random_range(0..5)) {
            (_, 0..=1) => name,
            (Kind::Int, 2) => format!("{name} + 1"),
            (Kind::Int, 3) => format!("CASE WHEN {name} > 2 THEN 1 WHEN {name} IS NULL THEN 7 ELSE 0 END"),
            (Kind::Int, _) => format!("abs({name}) % 3"),
            (Kind::Text, 2) => format!("upper({name})"),
            (Kind::Text, _) => format!("coalesce({name}, 'none') || '!'"),
            (Kind::Amount, 2) => format!("-{name}"),
            (Kind::Amount, _) => format!("coalesce({name}, 0.50)"),
            (Kind::Time, _) => format!("date_trunc('hour', {name})"),
        };
        (sql, kind)
    }

    /// `expression AS name, …`
    fn list(expressions: Vec<(String, Kind)>) -> (String, Vec<(String, Kind)>) {
        let named = expressions.iter().enumerate().map(|(i, (sql, _))| format!("{sql} AS c{i}")).collect::<Vec<_>>();
        (named.join(", "), expressions.into_iter().enumerate().map(|(i, (_, kind))| (format!("c{i}"), kind)).collect())
    }

    fn some(&mut self, columns: &[(String, Kind)]) -> Vec<(String, Kind)> {
        let count = self.random.random_range(1..4);
        (0..count).map(|_| self.expression(columns)).collect()
    }

    fn select(&mut self, depth: usize) -> (String, Vec<(String, Kind)>) {
        let input = self.input(depth);
        let (list, columns) = Self::list(self.some(&input.columns));
        (format!("SELECT {list} FROM {}{}", input.from, self.filter(&input.columns)), columns)
    }

    fn join(&mut self, depth: usize) -> Option<(String, Vec<(String, Kind)>)> {
        let (left, right) = (self.input(depth.saturating_sub(1)), self.input(depth.saturating_sub(1)));
        let (name, kind) = self.any(&left.columns).clone();
        let other = self.pick(&right.columns, kind)?.to_string();
        let join = *["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"].choose(self.random).expect("not empty");
        let both = left.columns.iter().chain(&right.columns).cloned().collect::<Vec<_>>();
        let mut on = format!("{name} = {other}");
        if join != "FULL JOIN" && self.random.random_bool(0.3) {
            on += &format!(" AND {}", self.condition(&both));
        }
        let (list, columns) = Self::list(self.some(&both));
        Some((format!("SELECT {list} FROM {} {join} {} ON {on}{}", left.from, right.from, self.filter(&both)), columns))
    }

    fn aggregate(&mut self, depth: usize) -> (String, Vec<(String, Kind)>) {
        let input = self.input(depth);
        let keys = (0..self.random.random_range(0..3)).map(|_| self.expression(&input.columns)).collect::<Vec<_>>();
        let mut outputs = keys.clone();
        for _ in 0..self.random.random_range(1..4) {
            let (name, kind) = self.any(&input.columns).clone();
            let filter =
                if self.random.random_bool(0.2) { format!(" FILTER (WHERE {})", self.condition(&input.columns)) } else { String::new() };
            let distinct = if self.random.random_bool(0.2) { "DISTINCT " } else { "" };
            outputs.push(match (self.random.random_range(0..6), kind) {
                (0, _) => (format!("(count(*){filter})::int"), Kind::Int),
                (1, _) => (format!("(count({distinct}{name}){filter})::int"), Kind::Int),
                (2, _) => (format!("min({name}){filter}"), kind),
                (3, _) => (format!("max({name}){filter}"), kind),
                (_, Kind::Int) => (format!("(sum({distinct}{name}){filter})::int"), Kind::Int),
                (4, Kind::Amount) => (format!("(avg({name}){filter})::numeric(20,2)"), Kind::Amount),
                (_, Kind::Amount) => (format!("sum({distinct}{name}){filter}"), Kind::Amount),
                (_, _) => (format!("max({name}){filter}"), kind),
            });
        }
        let (list, columns) = Self::list(outputs);
        let mut sql = format!("SELECT {list} FROM {}{}", input.from, self.filter(&input.columns));
        if !keys.is_empty() {
            sql += &format!(" GROUP BY {}", keys.into_iter().map(|(sql, _)| sql).collect::<Vec<_>>().join(", "));
            if self.random.random_bool(0.3) {
                sql += " HAVING count(*) > 1";
            }
        }
        (sql, columns)
    }

    fn distinct(&mut self, depth: usize) -> (String, Vec<(String, Kind)>) {
        let input = self.input(depth);
        let (list, columns) = Self::list(self.some(&input.columns));
        (format!("SELECT DISTINCT {list} FROM {}{}", input.from, self.filter(&input.columns)), columns)
    }

    fn exists(&mut self, depth: usize) -> Option<(String, Vec<(String, Kind)>)> {
        let (left, right) = (self.input(depth.saturating_sub(1)), self.input(depth.saturating_sub(1)));
        let (name, kind) = self.any(&left.columns).clone();
        let other = self.pick(&right.columns, kind)?.to_string();
        let test = match self.random.random_range(0..4) {
            0 => format!("EXISTS (SELECT 1 FROM {} WHERE {other} = {name})", right.from),
            1 => format!("NOT EXISTS (SELECT 1 FROM {} WHERE {other} = {name})", right.from),
            2 => format!("{name} IN (SELECT {other} FROM {})", right.from),
            _ => format!("{name} NOT IN (SELECT {other} FROM {} WHERE {other} IS NOT NULL)", right.from),
        };
        let (list, columns) = Self::list(self.some(&left.columns));
        Some((format!("SELECT {list} FROM {} WHERE {test}", left.from), columns))
    }

    /// The order is total, so that only one answer is right.
    fn top_n(&mut self, depth: usize) -> (String, Vec<(String, Kind)>) {
        let input = self.input(depth);
        let (list, columns) = Self::list(self.some(&input.columns));
        let order = columns
            .iter()
            .map(|(n, _)| format!("{n}{}", if self.random.random_bool(0.5) { " DESC" } else { "" }))
            .collect::<Vec<_>>()
            .join(", ");
        let inner = format!("SELECT {list} FROM {}{}", input.from, self.filter(&input.columns));
        let n = self.random.random_range(1..5);
        if self.random.random_bool(0.5) {
            return (format!("SELECT * FROM ({inner}) AS t ORDER BY {order} LIMIT {n}"), columns);
        }
        let names = columns.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
        let key = &self.any(&columns).0;
        let ranked = format!("SELECT *, ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY {order}) AS place FROM ({inner}) AS t");
        (format!("SELECT {names} FROM ({ranked}) AS r WHERE place <= {n}"), columns)
    }

    fn union(&mut self, depth: usize) -> Option<(String, Vec<(String, Kind)>)> {
        let (left, right) = (self.input(depth.saturating_sub(1)), self.input(depth.saturating_sub(1)));
        let (a, kind) = self.any(&left.columns).clone();
        let b = self.pick(&right.columns, kind)?.to_string();
        let all = if self.random.random_bool(0.6) { " ALL" } else { "" };
        let (one, two) = (self.filter(&left.columns), self.filter(&right.columns));
        Some((
            format!("SELECT {a} AS c0 FROM {}{one} UNION{all} SELECT {b} FROM {}{two}", left.from, right.from),
            vec![("c0".into(), kind)],
        ))
    }
}
