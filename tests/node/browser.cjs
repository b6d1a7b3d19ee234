// What Grafana's packages look for in a browser while they load. What we use of them needs none of it, so a stand-in that answers
// anything with itself will do.
"use strict";

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
globalThis.navigator = { language: "en-US", languages: ["en-US"], userAgent: "node" };
// The packages greet on the console; our answers alone go to the standard output.
console.log = console.info = console.warn = console.error;
