//! BEGIN to ROLLBACK, and the settings that follow transactions.

use millpond_common::settings::{self, Scope as SettingScope};
use millpond_common::{Error, Result, SqlState};
use millpond_sql::StatementKind;

use crate::block::{Block, Mark, check_isolation, isolation_name};
use crate::error::only_in_block;
use crate::response::{Notice, Response};
use crate::session::Session;

impl Session {
    /// BEGIN, COMMIT, ROLLBACK, SET TRANSACTION, and savepoints.
    pub(crate) async fn transaction_control(&mut self, kind: &StatementKind) -> Result<Response> {
        match kind {
            StatementKind::Begin { isolation, read_only } => {
                if self.in_block() {
                    self.notice(Notice::warning(SqlState::ACTIVE_SQL_TRANSACTION, "there is already a transaction in progress"));
                }
                if let Some(isolation) = isolation {
                    check_isolation(*isolation)?;
                }
                let block = self.block.get_or_insert_with(|| Block::new(true, &self.settings));
                block.explicit = true;
                block.set_characteristics(*isolation, *read_only)?;
                Ok(Response::command("BEGIN"))
            }
            StatementKind::Commit { chain } => self.commit(*chain).await,
            StatementKind::Rollback { chain } => {
                self.warn_outside_block("ROLLBACK");
                let next = self.next_block(*chain)?;
                if let Some(block) = self.block.take() {
                    self.roll_back_block(block);
                }
                self.block = next;
                Ok(Response::command("ROLLBACK"))
            }
            StatementKind::SetTransaction { session: true, isolation, read_only } => {
                if let Some(isolation) = isolation {
                    check_isolation(*isolation)?;
                    self.settings.set("default_transaction_isolation", Some(isolation_name(*isolation)))?;
                }
                if let Some(read_only) = read_only {
                    self.settings.set("default_transaction_read_only", Some(if *read_only { "on" } else { "off" }))?;
                }
                Ok(Response::command("SET"))
            }
            StatementKind::SetTransaction { isolation, read_only, .. } => {
                match &mut self.block {
                    Some(block) if block.explicit => block.set_characteristics(*isolation, *read_only)?,
                    _ => self.notice(Notice::warning(
                        SqlState::NO_ACTIVE_SQL_TRANSACTION,
                        "SET TRANSACTION can only be used in transaction blocks",
                    )),
                }
                Ok(Response::command("SET"))
            }
            StatementKind::Savepoint(name) => {
                self.explicit_block("SAVEPOINT")?.savepoint(name);
                let (settings, cursors) = (self.settings.clone(), self.cursors.keys().cloned().collect());
                if let Some(block) = &mut self.block {
                    let replaced = block.replaced.clone();
                    block.marks.push(Mark { name: name.clone(), settings, replaced, cursors });
                }
                Ok(Response::command("SAVEPOINT"))
            }
            StatementKind::Release(name) => {
                self.explicit_block("RELEASE SAVEPOINT")?.release(name)?;
                if let Some(block) = &mut self.block {
                    block.marks.truncate(block.marks.iter().rposition(|m| m.name == *name).unwrap_or(0));
                }
                Ok(Response::command("RELEASE"))
            }
            StatementKind::RollbackTo(name) => {
                self.explicit_block("ROLLBACK TO SAVEPOINT")?.rollback_to(name)?;
                if let Some(block) = &mut self.block {
                    block.failed = false;
                    block.marks.truncate(block.marks.iter().rposition(|m| m.name == *name).map_or(0, |at| at + 1));
                    if let Some(mark) = block.marks.last() {
                        self.settings = mark.settings.clone();
                        block.replaced = mark.replaced.clone();
                        self.cursors.retain(|name, _| mark.cursors.contains(name));
                    }
                }
                Ok(Response::command("ROLLBACK"))
            }
            _ => Err(Error::internal("not a statement of transaction control")),
        }
    }

    async fn commit(&mut self, chain: bool) -> Result<Response> {
        self.warn_outside_block("COMMIT");
        let next = self.next_block(chain)?;
        let Some(block) = self.block.take() else { return Ok(Response::command("COMMIT")) };
        if block.failed {
            self.roll_back_block(block);
            self.block = next;
            return Ok(Response::command("ROLLBACK"));
        }
        self.commit_block(block).await?;
        self.block = next;
        Ok(Response::command("COMMIT"))
    }

    fn warn_outside_block(&self, command: &str) {
        if !self.in_block() {
            tracing::debug!(command, "outside of a transaction block");
            self.notice(Notice::warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress"));
        }
    }

    /// The block that AND CHAIN begins, with the characteristics of the one that ends.
    fn next_block(&self, chain: bool) -> Result<Option<Block>> {
        match &self.block {
            _ if !chain => Ok(None),
            Some(block) if block.explicit => {
                let mut next = Block::new(true, &self.settings);
                (next.isolation, next.read_only) = (block.isolation, block.read_only);
                Ok(Some(next))
            }
            _ => Err(only_in_block("AND CHAIN")),
        }
    }

    fn explicit_block(&mut self, command: &str) -> Result<&mut crate::transaction::Transaction> {
        let database = std::sync::Arc::clone(&self.database);
        match &mut self.block {
            Some(block) if block.explicit => Ok(block.transaction(&database)),
            _ => Err(only_in_block(command)),
        }
    }

    /// Makes a block's writes durable, and ends it whatever happens.
    pub(crate) async fn commit_block(&mut self, mut block: Block) -> Result<()> {
        self.close_cursors();
        let engine = self.database.engine.clone();
        let result = match block.begun() {
            Some(transaction) => transaction.commit(&engine).await,
            None => Ok(None),
        };
        match result {
            Ok(seq) => {
                self.last_write = seq.or(self.last_write);
                for (name, value) in block.replaced.iter().rev() {
                    self.settings.set(name, value.as_deref())?;
                }
                Ok(())
            }
            Err(error) => {
                self.roll_back_block(block);
                Err(error)
            }
        }
    }

    /// Takes back a block's writes and settings.
    pub(crate) fn roll_back_block(&mut self, mut block: Block) {
        self.close_cursors();
        if let Some(transaction) = block.begun() {
            transaction.rollback();
        }
        self.settings = block.settings;
    }

    /// Closes cursors that end with the transaction.
    pub(crate) fn close_cursors(&mut self) {
        self.cursors.retain(|_, c| c.hold);
    }

    /// SET, RESET, ALTER SYSTEM.
    pub(crate) async fn change_setting(&mut self, kind: &StatementKind) -> Result<Response> {
        match kind {
            StatementKind::Set { name, value, local } => {
                self.set(name, value.as_deref(), *local)?;
                Ok(Response::command("SET"))
            }
            StatementKind::Reset(Some(name)) => {
                self.set(name, None, false)?;
                Ok(Response::command("RESET"))
            }
            StatementKind::Reset(None) => {
                self.reset_settings()?;
                Ok(Response::command("RESET"))
            }
            StatementKind::AlterSystem { name, value } => {
                if self.in_block() {
                    return Err(crate::error::not_in_block("ALTER SYSTEM"));
                }
                self.database.alter_system(name, value.as_deref()).await?;
                Ok(Response::command("ALTER SYSTEM"))
            }
            _ => Err(Error::internal("not a statement about settings")),
        }
    }

    /// All of the session's settings back to their defaults.
    pub(crate) fn reset_settings(&mut self) -> Result<()> {
        let names = self.settings.explicit().map(|(name, _)| name).collect::<Vec<_>>();
        for name in names {
            if settings::find(name)?.scope == SettingScope::Session {
                self.settings.set(name, None)?;
            }
        }
        Ok(())
    }

    /// SET.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<()> {
        if name.contains('.') {
            return Ok(()); // Of an extension that is not there; PostgreSQL takes any.
        }
        let setting = settings::find(name)?;
        if setting.scope != SettingScope::Session {
            let error = Error::new(SqlState("55P02"), format!("parameter \"{}\" cannot be changed in a session", setting.name));
            return Err(match setting.scope {
                SettingScope::System => error.with_hint(format!("Use ALTER SYSTEM SET {} = …", setting.name)),
                _ => error,
            });
        }
        if setting.name == "transaction_isolation" {
            return self.set_isolation(value);
        }
        if local && !self.in_block() {
            self.notice(Notice::warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "SET LOCAL can only be used in transaction blocks"));
            return Ok(());
        }
        let before = self.settings.explicit().find(|(n, _)| *n == setting.name).map(|(_, v)| v.to_string());
        self.settings.set(setting.name, value)?;
        if let Some(block) = &mut self.block {
            match local {
                true => block.replaced.push((setting.name.into(), before)),
                false => block.replaced.retain(|(n, _)| n != setting.name),
            }
        }
        Ok(())
    }

    /// `SET transaction_isolation` is SET TRANSACTION ISOLATION LEVEL.
    fn set_isolation(&mut self, value: Option<&str>) -> Result<()> {
        use millpond_sql::statement::Isolation;
        let isolation = match value.map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("serializable") => Some(Isolation::Serializable),
            Some("repeatable read") => Some(Isolation::RepeatableRead),
            Some("read uncommitted") => Some(Isolation::ReadUncommitted),
            Some("read committed") => Some(Isolation::ReadCommitted),
            Some(other) => {
                let message = format!("invalid value for parameter \"transaction_isolation\": \"{other}\"");
                return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
        };
        match &mut self.block {
            Some(block) if block.explicit => block.set_characteristics(isolation, None),
            _ => isolation.map_or(Ok(()), check_isolation),
        }
    }
}
