"""One query in DuckDB over event files: prints what it cost and what it found, as JSON.

Standard input: {"files": {table: path}, "columns": {table: [[name, type]]}, "format": "csv", "query": "...", "sums": [0, 2]}
"""
import json, resource, sys, time
import duckdb

job = json.load(sys.stdin)
con = duckdb.connect()
for table, path in job["files"].items():
    columns = dict(job["columns"][table])
    if job["format"] == "csv":
        read = f"read_csv('{path}', header = false, auto_detect = false, delim = ',', quote = '\"', escape = '\"', columns = {columns})"
    elif job["format"] == "json":
        read = f"read_json('{path}', format = 'newline_delimited', columns = {columns})"
    else:
        read = f"read_parquet('{path}')"
    con.execute(f"CREATE VIEW {table} AS SELECT * FROM {read}")


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


before, started = cpu(), time.monotonic()
con.execute("CREATE TEMP TABLE result AS " + job["query"])
cost = {"wall_s": time.monotonic() - started, "cpu_s": cpu() - before}
cost["rss_peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
names = [d[0] for d in con.execute("SELECT * FROM result LIMIT 0").description]
sums = ", ".join(["count(*)"] + [f'coalesce(sum("{names[i]}"::BIGINT), 0)' for i in job["sums"]])
cost["found"] = [str(v) for v in con.execute(f"SELECT {sums} FROM result").fetchone()]
json.dump(cost, sys.stdout)
