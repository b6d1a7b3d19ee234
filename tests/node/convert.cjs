// Grafana's own frame converter on the bridge's answers: a line of JSON in, a line of JSON out.
//
//   in   {"id": 1, "body": [element, ...]}      what POST /json/query or GET /v1/frames answered
//   out  {"id": 1, "frames": [...]}             what a panel gets, or {"id": 1, "error": "..."}
"use strict";

const readline = require("node:readline");

// What the package's companions look for in a browser while they load. The converter itself uses none of it, so a stand-in that
// answers anything with itself will do.
const anything = new Proxy(function () {}, {
  get: (_, name) => (name === Symbol.toPrimitive ? () => "" : name === "length" ? 0 : anything),
  apply: () => anything,
  construct: () => anything,
});
globalThis.window = globalThis;
globalThis.document = anything;
globalThis.location = anything;
globalThis.history = {};
globalThis.addEventListener = () => {};
globalThis.localStorage = { getItem: () => null, setItem: () => {}, removeItem: () => {} };

const { getFieldDisplayName, toDataFrame } = require("@grafana/data");

function shown(frame, frames) {
  return {
    name: frame.name ?? null,
    refId: frame.refId ?? null,
    length: frame.length,
    meta: frame.meta ?? null,
    fields: frame.fields.map((field) => ({
      name: field.name,
      type: field.type,
      labels: field.labels ?? null,
      // A field without a config crashes the panel; so it must crash here.
      unit: field.config.unit ?? null,
      displayName: getFieldDisplayName(field, frame, frames),
      values: Array.from(field.values),
    })),
  };
}

function converted(body) {
  if (!Array.isArray(body)) {
    throw new TypeError("dataList.map is not a function");
  }
  const frames = body.map((element) => toDataFrame(element));
  for (const frame of frames) {
    for (const field of frame.fields) {
      if (field.values.length !== frame.length) {
        throw new Error(`field ${field.name} has ${field.values.length} values in a frame of ${frame.length}`);
      }
    }
  }
  return frames.map((frame) => shown(frame, frames));
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, body } = JSON.parse(line);
  let answer;
  try {
    answer = { id, frames: converted(body) };
  } catch (error) {
    answer = { id, error: String(error && error.message ? error.message : error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
