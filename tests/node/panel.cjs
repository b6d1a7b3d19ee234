// What a reader sees of a panel: the answer, then the panel's transformations, its field settings and its large figures, each by
// Grafana's own code (@grafana/data).
//
//   in   {"id": 1, "body": [element, ...], "panel": {...}, "variables": {"__from": "1", ...}}
//   out  {"id": 1, "frames": [{"notices": [...], "fields": [{"name", "cells": [{"text", "color"}], "links": [...]}]}],
//         "figures": [{"title", "text", "color"}]}
//
//   in   {"id": 1, "transformations": true}     out  {"id": 1, "transformations": ["organize", ...]}
"use strict";

require("./browser.cjs");
const data = require("@grafana/data");
const { answer } = require("./lines.cjs");

const THEME = data.createTheme();

// The settings that the panel editor offers for every field. @grafana/ui registers them with their editors; a value passes through.
const STANDARD = ["unit", "min", "max", "decimals", "displayName", "noValue", "color", "thresholds", "mappings", "links", "description"];
const CUSTOM = ["cellOptions", "width", "minWidth", "align", "hidden", "filterable", "inspect", "lineWidth", "fillOpacity", "hideFrom"];
const item = (id, isCustom) => ({
  id: isCustom ? `custom.${id}` : id,
  path: id,
  name: id,
  isCustom,
  process: (value) => value,
  shouldApply: () => true,
  settings: {},
});
data.standardFieldConfigEditorRegistry.setInit(() => [
  ...STANDARD.map((id) => item(id, false)),
  ...CUSTOM.map((id) => item(id, true)),
]);
// Two names are of one transformer.
const transformers = new Map(Object.values(data.standardTransformers).map((one) => [one.id, one]));
data.standardTransformersRegistry.setInit(() =>
  [...transformers].map(([id, one]) => ({ id, name: one.name, transformation: one }))
);

const VARIABLE = /\$(\w+)|\$\{([^}:]+)(?::(\w+))?\}|\[\[(\w+)\]\]/g;

// Variables that the test knows, and those of a cell (`__value`, `__data.fields`), as Grafana fills them in.
function replacer(variables) {
  return (text, scoped) =>
    String(text).replace(VARIABLE, (whole, plain, braced, format) => {
      const path = (plain ?? braced).split(".");
      const known = scoped && scoped[path[0]];
      let value = known ? path.slice(1).reduce((at, key) => (at == null ? at : at[key]), known.value) : variables[path[0]];
      if (value === undefined) {
        return whole;
      }
      return format === "percentencode" ? encodeURIComponent(value) : String(value);
    });
}

async function transformed(frames, transformations, interpolate) {
  const unknown = transformations.filter((one) => !data.standardTransformersRegistry.getIfExists(one.id));
  if (unknown.length) {
    throw new Error(`transformation ${unknown[0].id} is none of @grafana/data`);
  }
  return new Promise((resolve, reject) =>
    data.transformDataFrame(transformations, frames, { interpolate }).subscribe({ next: resolve, error: reject })
  );
}

function cells(field) {
  return Array.from(field.values).map((value) => {
    const found = field.display(value);
    // A cell may be a table of its own.
    const plain = typeof value === "object" ? null : value;
    return { value: plain, text: `${found.prefix ?? ""}${found.text}${found.suffix ?? ""}`, color: found.color ?? null };
  });
}

function shown(frame, frames) {
  return {
    refId: frame.refId ?? null,
    notices: frame.meta?.notices ?? [],
    fields: frame.fields.map((field) => ({
      name: data.getFieldDisplayName(field, frame, frames),
      type: field.type,
      config: { unit: field.config.unit ?? null, custom: field.config.custom ?? {}, color: field.config.color ?? null },
      cells: cells(field),
      links: field.getLinks ? [0].flatMap((row) => field.getLinks({ valueRowIndex: row }).map((link) => link.href)) : [],
    })),
  };
}

function figures(frames, panel, replaceVariables) {
  const found = data.getFieldDisplayValues({
    data: frames,
    reduceOptions: panel.options.reduceOptions,
    fieldConfig: panel.fieldConfig,
    replaceVariables,
    theme: THEME,
    timeZone: "utc",
  });
  return found.map(({ display }) => ({
    title: display.title ?? "",
    text: `${display.prefix ?? ""}${display.text}${display.suffix ?? ""}`,
    color: display.color ?? null,
  }));
}

async function drawn({ body, panel, variables }) {
  const replaceVariables = replacer(variables ?? {});
  const before = body.map((element) => data.toDataFrame(element));
  const after = await transformed(before, panel.transformations ?? [], replaceVariables);
  const frames = data.applyFieldOverrides({
    data: after,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: data.standardFieldConfigEditorRegistry,
    replaceVariables,
    theme: THEME,
    timeZone: "utc",
  });
  return {
    frames: frames.map((frame) => shown(frame, frames)),
    figures: panel.type === "stat" ? figures(frames, panel, replaceVariables) : [],
  };
}

answer((question) => (question.transformations ? { transformations: [...transformers.keys()] } : drawn(question)));
