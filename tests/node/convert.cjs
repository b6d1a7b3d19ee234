// Grafana's own frame converter on the bridge's answers.
//
//   in   {"id": 1, "body": [element, ...]}      what POST /json/query or GET /v1/frames answered
//   out  {"id": 1, "frames": [...]}             what a panel gets, or {"id": 1, "error": "..."}
"use strict";

require("./browser.cjs");
const { getFieldDisplayName, toDataFrame } = require("@grafana/data");
const { answer } = require("./lines.cjs");

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

answer(({ body }) => ({ frames: converted(body) }));
