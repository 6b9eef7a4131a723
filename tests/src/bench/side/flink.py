"""Queries on a Flink cluster of one JobManager and one TaskManager, both started here: prints a line of JSON for each.

Standard input: {"files": {table: path}, "columns": {table: [[name, type]]}, "format": "csv", "queries": {name: query},
"repeat": 3, "directory": "..."}. Costs are those of the TaskManager alone, after a run of the first query to warm it up.
"""
import json, os, pathlib, subprocess, sys, time, urllib.request
import pyflink, yaml
from pyflink.table import EnvironmentSettings, TableEnvironment

job = json.load(sys.stdin)
home = pathlib.Path(pyflink.__file__).parent
directory = pathlib.Path(job["directory"])
RPC, REST = 26123, 28081


def flat(prefix, tree, out):
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat(name + ".", value, out)
        else:
            out[name] = value


conf = {}
flat("", yaml.safe_load((home / "conf/config.yaml").read_text()), conf)
conf.update({
    "jobmanager.rpc.address": "localhost", "jobmanager.rpc.port": RPC, "rest.port": REST, "rest.address": "localhost", "rest.bind-port": REST,
    "jobmanager.memory.process.size": "1g", "taskmanager.memory.process.size": "4g", "taskmanager.numberOfTaskSlots": 1,
    "parallelism.default": 1, "pipeline.object-reuse": True, "state.backend.type": "rocksdb",
    "execution.checkpointing.incremental": True, "execution.checkpointing.interval": "10s",
    "execution.checkpointing.dir": f"file://{directory}/flink-checkpoints",
    "execution.checkpointing.checkpoints-after-tasks-finish.enabled": True,
    "io.tmp.dirs": str(directory / "flink-tmp"),
})
for name in ("flink-conf", "flink-log", "flink-tmp"):
    (directory / name).mkdir(exist_ok=True)
(directory / "flink-conf/config.yaml").write_text("\n".join(f"{k}: {json.dumps(v)}" for k, v in conf.items()) + "\n")
for file in (home / "conf").glob("log4j*"):
    (directory / "flink-conf" / file.name).write_text(file.read_text())
os.environ.update(FLINK_CONF_DIR=str(directory / "flink-conf"), FLINK_LOG_DIR=str(directory / "flink-log"), FLINK_HOME=str(home))


def start(script):
    log = open(directory / f"{script}.out", "w")
    return subprocess.Popen(["bash", str(home / "bin" / script), "start-foreground"], stdout=log, stderr=log)


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_peak(pid):
    line = next(l for l in open(f"/proc/{pid}/status") if l.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def slots():
    try:
        with urllib.request.urlopen(f"http://localhost:{REST}/overview", timeout=2) as answer:
            return json.load(answer)["slots-available"]
    except OSError:
        return 0


TYPES = {"BIGINT": "BIGINT", "VARCHAR": "STRING", "TIMESTAMP": "TIMESTAMP(3)"}
processes = [start("jobmanager.sh"), start("taskmanager.sh")]
try:
    deadline = time.monotonic() + 120
    while slots() < 1:
        if time.monotonic() > deadline or any(p.poll() is not None for p in processes):
            sys.exit("the Flink cluster does not start: " + (directory / "taskmanager.sh.out").read_text()[-2000:])
        time.sleep(0.3)
    task_manager = processes[1].pid
    env = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for key, value in {"execution.target": "remote", "rest.address": "localhost", "rest.port": str(REST), **conf}.items():
        if not key.startswith("env."):
            env.get_config().set(key, str(value).lower() if isinstance(value, bool) else str(value))
    for table, columns in job["columns"].items():
        fields = [f"`{name}` {TYPES[kind]}" for name, kind in columns] + ["WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND"]
        options = {"connector": "filesystem", "path": job["files"][table], "format": job["format"]}
        if job["format"] == "json":
            options["json.timestamp-format.standard"] = "ISO-8601"
        options = ", ".join(f"'{k}' = '{v}'" for k, v in options.items())
        env.execute_sql(f"CREATE TABLE {table} ({', '.join(fields)}) WITH ({options})")
    number = 0

    def run(query):
        global number
        number += 1
        before, started = cpu_s(task_manager), time.monotonic()
        env.execute_sql(f"CREATE TABLE sink{number} WITH ('connector' = 'blackhole') AS {query}").wait()
        return {"wall_s": time.monotonic() - started, "cpu_s": cpu_s(task_manager) - before, "rss_peak": rss_peak(task_manager)}

    first = True
    for name, query in job["queries"].items():
        try:
            if first:
                run(query)
                first = False
            for _ in range(job["repeat"]):
                print(json.dumps({"query": name, **run(query)}), flush=True)
        except Exception as error:
            print(f"{name} in Flink: {str(error)[-600:]}", file=sys.stderr)
finally:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()
