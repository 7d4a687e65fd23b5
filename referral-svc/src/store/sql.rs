//! Hand-written SQL with typed parameters, prepared once a connection.
//!
//! `diesel::sql_query` is parsed and planned anew each time; the write path cannot afford that.

use diesel::{
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    result::QueryResult,
    serialize::ToSql,
    sql_types::{HasSqlType, Untyped},
};
use std::marker::PhantomData;
use uuid::Uuid;

/// A statement; each `{}` in its text stands for the next bound parameter.
pub(super) struct Sql<'a> {
    text: &'static str,
    binds: Vec<Box<dyn QueryFragment<Pg> + Send + 'a>>,
}

struct Bind<T, V>(V, PhantomData<T>);

impl<T, V> QueryFragment<Pg> for Bind<T, V>
where
    Pg: HasSqlType<T>,
    V: ToSql<T, Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param(&self.0)
    }
}

impl<'a> Sql<'a> {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, binds: Vec::new() }
    }

    /// Binds the next parameter as SQL type `T`.
    pub(super) fn bind<T, V>(mut self, value: V) -> Self
    where
        Pg: HasSqlType<T>,
        T: Send + 'a,
        V: ToSql<T, Pg> + Send + 'a,
    {
        self.binds.push(Box::new(Bind(value, PhantomData::<T>)));
        self
    }
}

impl QueryFragment<Pg> for Sql<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut binds = self.binds.iter();
        let mut pieces = self.text.split("{}");
        out.push_sql(pieces.next().unwrap_or_default());
        for piece in pieces {
            let bind = binds.next().ok_or_else(|| super::impossible("a parameter is not bound"))?;
            bind.walk_ast(out.reborrow())?;
            out.push_sql(piece);
        }
        Ok(())
    }
}

impl QueryId for Sql<'_> {
    type QueryId = ();
    // The text is the cache key.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Sql<'_> {
    type SqlType = Untyped;
}

/// An array as PostgreSQL writes one: `unnest` takes columns of scalars only, so arrays travel as text.
pub(super) fn array_literal<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("{{{}}}", items.join(","))
}

/// Typed IDs as the column that they are.
pub(super) fn uuids<T: Into<Uuid> + Copy>(ids: impl IntoIterator<Item = T>) -> Vec<Uuid> {
    ids.into_iter().map(Into::into).collect()
}
