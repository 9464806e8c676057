"""Asks an engine the ten questions of docs/fleet.md, and holds the answers against what the runs' summaries say.

Usage: read_fleet.py ENGINE FLEET_FOLDER PAGE EXPECTED_JSON
"""

import atexit
import json
import math
import os
import re
import shutil
import sys

engine, folder, page, expected_file = sys.argv[1:]
text = open(page).read()
told = json.load(open(expected_file))
runs = told["runs"]


def fenced(heading, language):
    """The first block of this language below a heading that begins so."""
    below = text.split("\n" + heading, 1)[1]
    return re.search(rf"```{language}\n(.*?)```", below, re.S).group(1)


questions = {
    number: fenced(f"### {number}. ", "sql") for number in range(1, 11)
}


def duckdb_engine():
    import duckdb

    connection = duckdb.connect()
    for statement in fenced("### DuckDB", "sql").replace("'fleet/", f"'{folder}/").split(";"):
        if statement.strip():
            connection.execute(statement)
    return lambda sql: connection.execute(sql).fetchall()


def spark_engine():
    import pyspark
    from pyspark.sql import SparkSession

    # Its workers take connections from this machine alone.
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    # Three Javas of a minute's life: to compile better is not worth it.
    java = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": java,
        "spark.executor.extraJavaOptions": java,
    }
    builder = SparkSession.builder.master("local-cluster[2,1,1024]")
    spark = builder.config(map=settings).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    # What its workers write stands where it is installed, and would grow with each run.
    work = os.path.join(os.path.dirname(pyspark.__file__), "work", spark.sparkContext.applicationId)
    atexit.register(shutil.rmtree, work, ignore_errors=True)
    # Before that: else the executors that end with the workers are started anew.
    atexit.register(spark.stop)
    load = fenced("### Spark", "python").replace('f"fleet/', f'f"{folder}/')
    exec(load, {"spark": spark})
    return lambda sql: [tuple(row) for row in spark.sql(sql).collect()]


ask = {"duckdb": duckdb_engine, "spark": spark_engine}[engine]()


def added(key_of, values_of, rows):
    """Rows added up by key; each value with the function it is added by."""
    sums = {}
    for row in rows:
        key = key_of(row)
        values = values_of(row)
        sums[key] = [a + b for a, b in zip(sums[key], values)] if key in sums else list(values)
    return sums


def percentile(latencies, quantile):
    return sorted(latencies)[math.ceil(quantile * len(latencies)) - 1]


def summaries():
    return [(run, run["summary"]) for run in runs]


def vcpus():
    return [(run, vcpu) for run, summary in summaries() for vcpu in summary["vcpus"]]


def ready():
    sums = added(lambda r: r[0]["host"], lambda r: (r[1]["wait_ns"], r[1]["observed_ns"]), vcpus())
    rows = [(host, wait, seen, round(100 * wait / seen, 2)) for host, (wait, seen) in sums.items()]
    return sorted(rows, key=lambda row: (-row[3], row[0]))


def neighbours():
    sums, victims = {}, {}
    for run, vcpu in vcpus():
        for ran in vcpu["antagonist_groups"]:
            if ran["kind"] == "other_vm":
                key = (run["host"], ran["name"])
                sums[key] = sums.get(key, 0) + ran["ran_ns"]
                victims.setdefault(key, set()).add(vcpu["vm"])
    rows = [(*key, ran_ns, len(victims[key])) for key, ran_ns in sums.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def tail_by(name):
    latencies = {}
    for run in runs:
        latencies.setdefault(run[name], []).extend(run["latencies_ns"])
    return sorted((key, len(of), percentile(of, 0.99)) for key, of in latencies.items())


def change():
    rows = []
    for run, summary in summaries():
        parts, latencies = summary["parts"]["all"], run["latencies_ns"]
        period = "before" if run["day"] < "2026-11-25" else "after"
        waited = parts["preempt_wait"] + parts["wakeup_delay"]
        tail = [percentile(latencies, quantile) for quantile in (0.5, 0.99)]
        rows.append((run["host"], period, summary["requests"]["count"], *tail, waited))
    return sorted(rows)


def slowest():
    def values(row):
        summary = row[1]
        parts = summary["parts"]["p99"]
        names = ("preempt_wait", "wakeup_delay", "bql_wait", "on_pcpu")
        count, latency = (summary["classes"]["p99"][name] for name in ("count", "latency_ns"))
        return (count, latency, *(parts[name] for name in names))

    sums = added(lambda row: row[0]["host"], values, summaries())
    return sorted((host, *values) for host, values in sums.items())


def reasons():
    sums = {}
    for run, vcpu in vcpus():
        for row in vcpu["off_cpu"]:
            if row["count"] > 0:
                count, total, longest = sums.get((run["host"], row["reason"]), (0, 0, 0))
                sums[run["host"], row["reason"]] = (
                    count + row["count"],
                    total + row["total_ns"],
                    max(longest, row["max_ns"]),
                )
    rows = [(*key, *values) for key, values in sums.items()]
    return sorted(rows, key=lambda row: (row[0], -row[3], row[1]))


def locks():
    sums = {}
    for run, summary in summaries():
        for row in summary["lock_waits"]:
            key = (run["host"], row["vm"], row["released_by"]["name"])
            count, total, longest = sums.get(key, (0, 0, 0))
            sums[key] = (count + row["count"], total + row["total_ns"], max(longest, row["max_ns"]))
    rows = [(*key, *values) for key, values in sums.items()]
    return sorted(rows, key=lambda row: (-row[4], row[:3]))


def then():
    [summary] = [summary for run, summary in summaries() if (run["host"], run["day"]) == ("kvm3", "2026-11-24")]
    rows = []
    for worst in summary["worst"]:
        # Nobody else ran on the pCPU that it waited for.
        ran = [ran for span in worst["chain"] for ran in span["antagonists"]]
        assert len({row["name"] for row in ran}) == 1, ran
        ran_ns = sum(row["ran_ns"] for row in ran)
        rows.append((worst["vm"], worst["start_ns"], worst["latency_ns"], ran[0]["name"], ran_ns))
    return sorted(rows, key=lambda row: (-row[2], row[1]))


def doubtful():
    rows = []
    for run, summary in summaries():
        status, lost = summary["status"], summary["lost"]["records"]
        if status["state"] != "complete" or lost or summary["requests"]["dropped"]:
            rows.append((run["host"], run["run"], status["state"], status.get("reason"), lost))
    return sorted(rows)


answers = {
    1: ready(),
    2: neighbours(),
    3: tail_by("kernel"),
    4: tail_by("qemu"),
    5: change(),
    6: slowest(),
    7: reasons(),
    8: locks(),
    9: then(),
    10: doubtful(),
}


def plain(rows):
    """Sums are decimals or integers, shares decimals or doubles, by engine."""
    whole = lambda value: value if value is None or isinstance(value, str) else round(float(value), 2)
    return [tuple(whole(value) for value in row) for row in rows]


wrong = 0
for number, sql in questions.items():
    answer, expected = plain(ask(sql)), plain(answers[number])
    if not expected:
        wrong += 1
        print(f"question {number}: nothing is expected, which tries nothing")
    if answer != expected:
        wrong += 1
        print(f"question {number}: {engine} answers\n{answer}\nby the summaries it is\n{expected}")

# What the summary has of timeslices.
expected = sorted(
    (run["host"], run["day"], vcpu["vm"], vcpu["timeslices"]["count"], vcpu["timeslices"]["max_ns"])
    for run, vcpu in vcpus()
    if vcpu["timeslices"]["count"]
)
answer = ask(
    "SELECT host, CAST(day AS STRING), vm, count(*), max(length_ns) FROM timeslices GROUP BY host, day, vm ORDER BY 1, 2, 3"
)
if plain(answer) != plain(expected):
    wrong += 1
    print(f"timeslices: {answer}\nby the summaries it is\n{expected}")

# The row of a later version, beside those of this one.
[(all_rows, of_later)] = ask("SELECT count(*), count(rack) FROM runs")
if (all_rows, of_later) != (len(runs) + 1, 1):
    wrong += 1
    print(f"runs: {all_rows} rows, {of_later} of them with a rack")

sys.exit(1 if wrong else 0)
