//! Writes the directory that `tests/format_1.rs` opens: `cargo run -p thmanyah-state --example write_fixture DIR`.

use std::path::PathBuf;
use std::{env, fs, io};
use thmanyah_state::{Options, Position, Store, Table, WriteSet};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(env::args().nth(1).ok_or("which directory?")?);
    let store = Store::open(&dir, &Options::default())?;
    let mut writes = WriteSet::new();
    for (i, table) in (1i64..).zip([Table::Content, Table::Pending, Table::Seen]) {
        rows(&mut writes, table, i);
    }
    store.apply(&mut writes)?;
    for table in [Table::Content, Table::Pending] {
        store.flush(table)?;
    }
    rows(&mut writes, Table::Recent, 4);
    store.apply_unlogged(&mut writes)?;
    store.flush(Table::Recent)?;
    // In the log only.
    writes.put(Table::Content, b"logged", b"only");
    store.apply(&mut writes)?;
    let files: Vec<PathBuf> = fs::read_dir(dir.join("db"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    // Copied while open, as a killed process leaves it; and without what RocksDB does not need.
    let copy = dir.with_extension("copy");
    fs::create_dir_all(copy.join("db"))?;
    fs::copy(dir.join("FORMAT"), copy.join("FORMAT"))?;
    for file in files {
        let name = file.file_name().unwrap_or_default();
        let text = name.to_string_lossy();
        if !text.starts_with("LOG") && !text.starts_with("OPTIONS") && text != "LOCK" {
            fs::copy(&file, copy.join("db").join(name))?;
        }
    }
    Ok(())
}

fn rows(writes: &mut WriteSet, table: Table, offset: i64) {
    writes.put(table, b"key", table.name().as_bytes());
    writes.put(table, b"deleted", b"");
    writes.delete(table, b"deleted");
    writes.set_position(
        table,
        7,
        Position {
            offset,
            topic_id: *b"0123456789abcdef",
            fresh_at_ms: 1_735_734_600_000,
        },
    );
}
