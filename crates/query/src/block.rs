//! A session's transaction block: explicit from BEGIN to COMMIT, implicit around the statements of one message.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use millpond_common::settings::Settings;
use millpond_common::{Error, Result, SqlState};
use millpond_sql::statement::Isolation;

use crate::database::Database;
use crate::transaction::{self, Transaction};

/// Where a session stands, for the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionStatus {
    /// Outside of a transaction block.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a transaction block that an error has failed; only ROLLBACK helps.
    Failed,
}

/// An open block.
pub(crate) struct Block {
    /// Opened by BEGIN.
    pub explicit: bool,
    /// An error happened in it.
    pub failed: bool,
    /// Of its transaction.
    pub isolation: Isolation,
    /// Of its transaction.
    pub read_only: bool,
    /// What `now()` gives in it.
    pub started: DateTime<Utc>,
    /// The session's settings when it began: ROLLBACK returns to them.
    pub settings: Settings,
    /// What SET LOCAL has replaced, newest last: COMMIT returns to it.
    pub replaced: Vec<(String, Option<String>)>,
    /// What its savepoints found, in their order.
    pub marks: Vec<Mark>,
    /// Begun with the first statement that reads or writes, so that SET TRANSACTION can come before.
    transaction: Option<Transaction>,
}

/// What of the session ROLLBACK TO a savepoint returns to; its transaction has marks of its own.
pub(crate) struct Mark {
    pub name: String,
    pub settings: Settings,
    pub replaced: Vec<(String, Option<String>)>,
    /// Names of the cursors that were open.
    pub cursors: BTreeSet<String>,
}

impl Block {
    /// A block as the session's defaults have it.
    pub fn new(explicit: bool, settings: &Settings) -> Self {
        let isolation = settings.get("default_transaction_isolation").unwrap_or_default();
        Block {
            explicit,
            failed: false,
            isolation: isolation_of(&isolation),
            read_only: settings.on("default_transaction_read_only"),
            started: Utc::now(),
            settings: settings.clone(),
            replaced: vec![],
            marks: vec![],
            transaction: None,
        }
    }

    /// Its transaction, begun now at the latest.
    pub fn transaction(&mut self, database: &Arc<Database>) -> &mut Transaction {
        let read_only = self.read_only;
        let isolation = match self.isolation {
            Isolation::RepeatableRead | Isolation::Serializable => transaction::Isolation::RepeatableRead,
            Isolation::ReadCommitted | Isolation::ReadUncommitted => transaction::Isolation::ReadCommitted,
        };
        let begin = || Transaction::begin(&database.transactions, &database.store, isolation, read_only);
        self.transaction.get_or_insert_with(begin)
    }

    /// Its transaction, if it has begun.
    pub fn begun(&mut self) -> Option<&mut Transaction> {
        self.transaction.as_mut()
    }

    /// An error happened in it. Without a savepoint to return to, its transaction ends now: nobody waits any longer for what it locked.
    pub fn fail(&mut self) {
        self.failed = true;
        if self.marks.is_empty() {
            self.transaction = None;
        }
    }

    /// Changes the transaction's characteristics, which must not have begun.
    pub fn set_characteristics(&mut self, isolation: Option<Isolation>, read_only: Option<bool>) -> Result<()> {
        if let Some(isolation) = isolation {
            check_isolation(isolation)?;
            if self.transaction.is_some() && isolation != self.isolation {
                let message = "SET TRANSACTION ISOLATION LEVEL must be called before any query";
                return Err(Error::new(SqlState::ACTIVE_SQL_TRANSACTION, message));
            }
            self.isolation = isolation;
        }
        if let Some(read_only) = read_only {
            if self.transaction.is_some() && !read_only && self.read_only {
                let message = "transaction read-write mode must be set before any query";
                return Err(Error::new(SqlState::ACTIVE_SQL_TRANSACTION, message));
            }
            if self.transaction.is_some() && read_only && !self.read_only {
                let message = "transaction read-only mode must be set before any query";
                return Err(Error::new(SqlState::ACTIVE_SQL_TRANSACTION, message));
            }
            self.read_only = read_only;
        }
        Ok(())
    }
}

/// Refuses what is not true here.
pub(crate) fn check_isolation(isolation: Isolation) -> Result<()> {
    match isolation {
        Isolation::Serializable => {
            Err(Error::unsupported("isolation level SERIALIZABLE is not supported", "Use REPEATABLE READ, and be ready to retry on 40001."))
        }
        _ => Ok(()),
    }
}

/// The isolation level that a setting names.
fn isolation_of(name: &str) -> Isolation {
    match name {
        "repeatable read" => Isolation::RepeatableRead,
        "read uncommitted" => Isolation::ReadUncommitted,
        _ => Isolation::ReadCommitted,
    }
}

/// A level as SHOW names it.
pub(crate) fn isolation_name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadUncommitted => "read uncommitted",
        Isolation::ReadCommitted => "read committed",
        Isolation::RepeatableRead => "repeatable read",
        Isolation::Serializable => "serializable",
    }
}
