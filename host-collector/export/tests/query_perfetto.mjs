#!/usr/bin/env node
// Loads a trace in Perfetto's own trace processor and prints what SQL says of it: for each query of standard input, one a
// line, the rows as JSON, one list a line.
//
//     query_perfetto.mjs PROCESSOR TRACE < queries
//
// PROCESSOR is the folder that `tests/readers` puts it in: the processor as WebAssembly, with the glue of Perfetto's page
// around it. That glue is of a worker of a browser: here three of its lines are changed, so that node can have it.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { runInThisContext } from "node:vm";

const [folder, trace] = process.argv.slice(2);

/** The glue, with the processor's bytes at hand and its bridge in reach. */
function glue() {
  const changes = [
    ["this.useMemory64 = hasMemory64Support();", "this.useMemory64 = false;"],
    ["locateFile: (s) => s,", "locateFile: (s) => s, wasmBinary: globalThis.processorBytes,"],
    [
      "const wasmBridge = new wasm_bridge_1.WasmBridge();",
      "const wasmBridge = new wasm_bridge_1.WasmBridge(); globalThis.processorBridge = wasmBridge;",
    ],
  ];
  return changes.reduce((text, [from, to]) => {
    if (!text.includes(from)) throw new Error(`the glue has no line ${from}`);
    return text.replace(from, to);
  }, readFileSync(join(folder, "engine_bundle.node.js"), "utf8"));
}

/** The processor, once it takes requests. */
async function startedBridge() {
  Object.defineProperty(globalThis, "self", { value: globalThis, configurable: true });
  globalThis.WorkerGlobalScope = function WorkerGlobalScope() {};
  globalThis.location = { href: `${pathToFileURL(folder).href}/` };
  globalThis.processorBytes = new Uint8Array(readFileSync(join(folder, "trace_processor.wasm")));
  runInThisContext(glue(), { filename: "engine_bundle.node.js" });
  const bridge = globalThis.processorBridge;
  while (bridge.reqBufferAddr === 0) await new Promise((resolve) => setImmediate(resolve));
  return bridge;
}

/** The engine that Perfetto's page asks, on this processor. */
async function startedEngine() {
  const { EngineBase } = await import(pathToFileURL(join(folder, "engine.mjs")).href);
  const { port1, port2 } = new MessageChannel();
  const bridge = await startedBridge();
  bridge.initialize(port1);
  class Engine extends EngineBase {
    mode = "WASM";
    id = "processor";
    rpcSendRequestBytes(data) {
      port2.postMessage(data);
    }
    close() {
      port1.close();
    }
  }
  const engine = new Engine();
  port2.onmessage = (message) => engine.onRpcResponseBytes(message.data);
  return engine;
}

/** Rows as objects. */
function rows(result) {
  const columns = result.columns();
  const cell = (value) => (typeof value === "bigint" ? Number(value) : value);
  const told = [];
  for (const row = result.iter({}); row.valid(); row.next()) {
    told.push(Object.fromEntries(columns.map((name) => [name, cell(row.get(name))])));
  }
  return told;
}

// What the glue warns of (fields that this engine is too old for) is no answer.
console.log = console.info = console.warn = () => {};
const engine = await startedEngine();
const bytes = new Uint8Array(readFileSync(trace));
const PIECE_BYTES = 32 << 20;
for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
  await engine.parse(bytes.subarray(at, at + PIECE_BYTES));
}
await engine.notifyEof();
for (const sql of readFileSync(0, "utf8").split("\n").filter((line) => line.trim())) {
  const result = await engine.query(sql);
  process.stdout.write(`${JSON.stringify(rows(result))}\n`);
}
engine.close();
