//! The demo: a pipeline over real files and generated events, and one of its views as it changes.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use millpond_common::Result;
use millpond_query::Database;

use crate::server;

/// What a new demo database runs. Its paths are relative to the repository's folder.
pub const SCRIPT: &str = include_str!("../../../sql/demo.sql");

const QUERY: &str = "SELECT channel, bids, average_price FROM bids_per_channel ORDER BY bids DESC, channel LIMIT 5";
const LINES: usize = 8;

/// Shows the view once a second until it is aborted.
pub async fn show(database: Arc<Database>, address: SocketAddr) {
    println!("\nMillpond runs with the demo pipeline on {address}, database dev. In another terminal:\n");
    println!("    psql -h {} -p {} -U demo dev\n", address.ip(), address.port());
    println!("and there, for example:  \\dm   SELECT * FROM balance LIMIT 5;   SHOW JOBS;\n");
    println!("SELECT … FROM bids_per_channel, once a second (Ctrl-C ends the server):\n");
    let terminal = std::io::stdout().is_terminal();
    let mut first = true;
    loop {
        match frame(&database).await {
            Ok(lines) => {
                if terminal && !first {
                    print!("\x1b[{LINES}A");
                }
                for line in lines.iter().chain(std::iter::repeat(&String::new())).take(LINES) {
                    println!("{line}{}", if terminal { "\x1b[K" } else { "" });
                }
                let _ = std::io::stdout().flush();
                first = false;
            }
            Err(error) => tracing::warn!(%error, "the demo's view cannot be shown"),
        }
        // Without a terminal there is nobody who watches it change.
        tokio::time::sleep(Duration::from_secs(if terminal { 1 } else { 10 })).await;
    }
}

async fn frame(database: &Arc<Database>) -> Result<Vec<String>> {
    let mut session = server::session(database, "demo")?;
    let batches = server::query(&mut session, QUERY).await?;
    let mut lines = vec![
        format!("  epoch {}", database.engine().store().visible_epoch()),
        format!("  {:<16} {:>12} {:>16}", "channel", "bids", "average_price"),
    ];
    let options = FormatOptions::default();
    for batch in batches {
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<std::result::Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let mut text = columns.iter().map(|c| c.value(row).to_string());
            let mut next = || text.next().unwrap_or_default();
            let (channel, bids, price) = (next(), next(), next());
            let price = price.split_once('.').map_or(price.clone(), |(whole, part)| format!("{whole}.{:.2}", part));
            lines.push(format!("  {channel:<16} {bids:>12} {price:>16}"));
        }
    }
    Ok(lines)
}
