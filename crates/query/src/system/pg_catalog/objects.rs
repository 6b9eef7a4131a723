//! Types, functions, access methods, and the other things that come with the server.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::system::facts::{self, PG_CATALOG, ROLE};
use crate::system::functions;
use crate::system::rows::{Rows, row};
use crate::system::types::TYPES;

pub fn pg_type(rows: &mut Rows) {
    for t in TYPES.iter() {
        let [input, output, receive, send] = t.functions;
        let [modin, modout] = t.typmod;
        row!(rows;
            oid: t.oid, typname: t.name, typnamespace: PG_CATALOG, typowner: ROLE, typlen: t.len, typbyval: t.by_value, typtype: t.kind,
            typcategory: t.category, typispreferred: t.preferred, typisdefined: true, typdelim: t.delimiter, typelem: t.elem, typarray: t.array,
            typsubscript: if t.elem != 0 { function_oid("array_subscript_handler") } else { 0 },
            typinput: function_oid(input), typoutput: function_oid(output), typreceive: function_oid(receive), typsend: function_oid(send),
            typmodin: function_oid(modin), typmodout: function_oid(modout),
            typalign: t.align, typstorage: t.storage, typtypmod: -1, typcollation: t.collation,
        );
    }
}

/// Every function that can be called, with its number and `pg_proc.prokind`. Types are not told: most take several.
pub static FUNCTIONS: LazyLock<BTreeMap<String, (u32, &'static str)>> = LazyLock::new(|| {
    let mut kinds: BTreeMap<String, &'static str> = BTreeMap::new();
    for f in datafusion::functions::all_default_functions() {
        kinds.insert(f.name().to_string(), "f");
        kinds.extend(f.aliases().iter().map(|a| (a.clone(), "f")));
    }
    for f in datafusion::functions_nested::all_default_nested_functions() {
        kinds.insert(f.name().to_string(), "f");
    }
    for f in datafusion::functions_aggregate::all_default_aggregate_functions() {
        kinds.insert(f.name().to_string(), "a");
    }
    for f in datafusion::functions_window::all_default_window_functions() {
        kinds.entry(f.name().to_string()).or_insert("w");
    }
    kinds.extend(functions::names().map(|n| (n.to_string(), "f")));
    // Drivers tell types apart by these; they cannot be called.
    for t in TYPES.iter() {
        kinds.extend(t.functions.iter().chain(&t.typmod).filter(|n| **n != "-").map(|n| (n.to_string(), "f")));
    }
    kinds.insert("array_subscript_handler".into(), "f");
    kinds.retain(|name, _| !name.starts_with("millpond_"));
    kinds.into_iter().enumerate().map(|(i, (name, kind))| (name, (15_000 + u32::try_from(i).unwrap_or(0), kind))).collect()
});

/// A function's number; 0 for `-`, none.
fn function_oid(name: &str) -> u32 {
    FUNCTIONS.get(name).map_or(0, |(oid, _)| *oid)
}

pub fn pg_proc(rows: &mut Rows) {
    for (name, (oid, kind)) in FUNCTIONS.iter() {
        row!(rows;
            oid: *oid, proname: name, pronamespace: PG_CATALOG, proowner: ROLE, prolang: 12, procost: 1.0, prokind: *kind, proisstrict: true,
            provolatile: "i", proparallel: "s", prorettype: 2276, pronargs: 1, proargtypes: vec![2276_i64], prosrc: name,
        );
    }
}

pub fn pg_am(rows: &mut Rows) {
    row!(rows; oid: facts::ACCESS_METHOD, amname: "millpond", amtype: "t");
    row!(rows; oid: facts::INDEX_METHOD, amname: "btree", amtype: "i");
}

pub fn pg_language(rows: &mut Rows) {
    row!(rows; oid: 12, lanname: "internal", lanowner: ROLE);
    row!(rows; oid: 14, lanname: "sql", lanowner: ROLE, lanpltrusted: true);
}

pub fn pg_collation(rows: &mut Rows) {
    for (oid, name, provider) in [(100, "default", "d"), (950, "C", "c"), (951, "POSIX", "c")] {
        row!(rows;
            oid: oid, collname: name, collnamespace: PG_CATALOG, collowner: ROLE, collprovider: provider, collisdeterministic: true, collencoding: -1,
            collcollate: if name == "default" { None } else { Some("C") }, collctype: if name == "default" { None } else { Some("C") },
        );
    }
}

pub fn pg_foreign_data_wrapper(rows: &mut Rows) {
    row!(rows; oid: facts::SERVER + 1, fdwname: "millpond_connector", fdwowner: ROLE);
}

pub fn pg_foreign_server(rows: &mut Rows) {
    row!(rows; oid: facts::SERVER, srvname: "millpond", srvowner: ROLE, srvfdw: facts::SERVER + 1);
}
