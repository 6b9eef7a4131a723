//! What the server says. Messages gather in one bounded buffer, rows are written straight into it.
//!
//! Small messages of fixed form are pgwire's. Those that carry texts of any length are written here, because
//! pgwire refuses to encode an error or a tag of more than 10 kB.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use millpond_common::{Error, Result, SqlState};
use pgwire::messages::Message;
use pgwire::messages::data::{NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{EmptyQueryResponse, ReadyForQuery, TransactionStatus as PgStatus};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, SecretKey};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::binary::encode::put_value;
use crate::column::Column;
use crate::database::TransactionStatus;
use crate::notice::Notice;

/// From this size on the buffer is written to the client before more is added.
const FLUSH_BYTES: usize = 64 << 10;

/// The server's side of a connection.
pub(crate) struct Output<W> {
    writer: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub(crate) fn new(writer: W) -> Self {
        Output { writer, buffer: BytesMut::new() }
    }

    /// Writes everything to the client; waits for a slow one.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.buffer).await?;
        self.buffer.clear();
        if self.buffer.capacity() > 4 * FLUSH_BYTES {
            self.buffer = BytesMut::new();
        }
        self.writer.flush().await
    }

    /// Writes to the client if enough has gathered.
    pub(crate) async fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= FLUSH_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Says that nothing more comes.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }

    /// One byte outside of any message: the answer to a request for encryption.
    pub(crate) fn byte(&mut self, byte: u8) {
        self.buffer.put_u8(byte);
    }

    fn message(&mut self, message: impl Message) {
        let start = self.buffer.len();
        if let Err(e) = message.encode(&mut self.buffer) {
            // Fixed forms always fit; half a message must never leave.
            tracing::error!(error = %e, "a message could not be encoded");
            self.buffer.truncate(start);
        }
    }

    /// A message whose length is known only once its body is written.
    fn framed(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
        let start = self.buffer.len();
        self.buffer.put_u8(kind);
        self.buffer.put_i32(0);
        let written = body(&mut self.buffer).and_then(|()| {
            i32::try_from(self.buffer.len() - start - 1)
                .map_err(|_| Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "a row is too large for the protocol"))
        });
        match written {
            Ok(length) => {
                self.buffer[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            Err(e) => {
                self.buffer.truncate(start);
                Err(e)
            }
        }
    }

    fn texts(&mut self, kind: u8, texts: &[&str]) {
        let written = self.framed(kind, |out| {
            for text in texts {
                put_text(out, text);
            }
            Ok(())
        });
        debug_assert!(written.is_ok(), "texts in memory fit a message");
    }

    pub(crate) fn authentication_ok(&mut self) {
        self.message(Authentication::Ok);
    }

    pub(crate) fn negotiate_protocol_version(&mut self, version: i32, unsupported_options: Vec<String>) {
        self.message(NegotiateProtocolVersion::new(version, unsupported_options));
    }

    pub(crate) fn parameter_status(&mut self, name: &str, value: &str) {
        self.texts(b'S', &[name, value]);
    }

    pub(crate) fn backend_key_data(&mut self, process_id: i32, secret: &[u8]) {
        let secret = match <[u8; 4]>::try_from(secret) {
            Ok(four) => SecretKey::I32(i32::from_be_bytes(four)),
            Err(_) => SecretKey::Bytes(Bytes::copy_from_slice(secret)),
        };
        self.message(BackendKeyData::new(process_id, secret));
    }

    pub(crate) fn ready_for_query(&mut self, status: TransactionStatus) {
        self.message(ReadyForQuery::new(match status {
            TransactionStatus::Idle => PgStatus::Idle,
            TransactionStatus::InTransaction => PgStatus::Transaction,
            TransactionStatus::Failed => PgStatus::Error,
        }));
    }

    pub(crate) fn row_description(&mut self, description: RowDescription) {
        self.message(description);
    }

    pub(crate) fn parameter_description(&mut self, types: Vec<u32>) {
        self.message(ParameterDescription::new(types));
    }

    pub(crate) fn no_data(&mut self) {
        self.message(NoData::new());
    }

    pub(crate) fn parse_complete(&mut self) {
        self.message(ParseComplete::new());
    }

    pub(crate) fn bind_complete(&mut self) {
        self.message(BindComplete::new());
    }

    pub(crate) fn close_complete(&mut self) {
        self.message(CloseComplete::new());
    }

    pub(crate) fn portal_suspended(&mut self) {
        self.message(PortalSuspended::new());
    }

    pub(crate) fn empty_query(&mut self) {
        self.message(EmptyQueryResponse::new());
    }

    pub(crate) fn command_complete(&mut self, tag: &str) {
        self.texts(b'C', &[tag]);
    }

    /// One row; `binary[i]` tells the format of column `i`.
    pub(crate) fn data_row(&mut self, columns: &[Column], binary: &[bool], row: usize) -> Result<()> {
        self.framed(b'D', |out| {
            out.put_i16(columns.len() as i16);
            columns.iter().zip(binary).try_for_each(|(column, binary)| put_value(column, row, *binary, out))
        })
    }

    /// An error. `severity` is ERROR (the session goes on) or FATAL (it ends).
    pub(crate) fn error(&mut self, severity: &str, error: &Error) {
        let position = error.position().map(|p| p.to_string());
        let fields = [
            (b'S', Some(severity)),
            (b'V', Some(severity)),
            (b'C', Some(error.state().0)),
            (b'M', Some(error.message())),
            (b'D', error.detail()),
            (b'H', error.hint()),
            (b'P', position.as_deref()),
            (b'n', error.constraint()),
        ];
        self.fields(b'E', &fields);
    }

    pub(crate) fn notice(&mut self, notice: &Notice) {
        let fields = [
            (b'S', Some(notice.severity)),
            (b'V', Some(notice.severity)),
            (b'C', Some(notice.state.0)),
            (b'M', Some(notice.message.as_str())),
            (b'D', notice.detail.as_deref()),
            (b'H', notice.hint.as_deref()),
        ];
        self.fields(b'N', &fields);
    }

    fn fields(&mut self, kind: u8, fields: &[(u8, Option<&str>)]) {
        let written = self.framed(kind, |out| {
            for (field, text) in fields {
                if let Some(text) = text {
                    out.put_u8(*field);
                    put_text(out, text);
                }
            }
            out.put_u8(0);
            Ok(())
        });
        debug_assert!(written.is_ok(), "an error's texts fit a message");
    }
}

/// A text with its zero byte; zero bytes inside would end it early and are left out.
fn put_text(out: &mut BytesMut, text: &str) {
    for part in text.split('\0') {
        out.put_slice(part.as_bytes());
    }
    out.put_u8(0);
}
