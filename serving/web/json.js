/** JSON as people read it. */

const LINE_LENGTH = 60;

/** Break JSON into lines; other text stays as it is, such as TensorFlow Serving's bare NaN. */
export function withLines(text) {
  try {
    return lines("", JSON.parse(text, withDigits), "");
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return text;
  }
}

/** Numbers keep the digits that they came with, such as 1.0, where the browser can. */
function withDigits(_, value, context) {
  return typeof value === "number" && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
}

/** `key` and `value` as lines; the caller indents the first one. */
function lines(key, value, indent) {
  const line = `${key}${oneLine(value)}`;
  const fits = indent.length + line.length <= LINE_LENGTH;
  if (fits || !isNested(value) || (Array.isArray(value) && !value.some(isNested))) return line;
  const inner = `${indent}  `;
  const [opening, closing] = Array.isArray(value) ? "[]" : "{}";
  const parts = members(value).map(([name, part]) => `${inner}${lines(name, part, inner)}`);
  return `${key}${opening}\n${parts.join(",\n")}\n${indent}${closing}`;
}

function oneLine(value) {
  if (!isNested(value)) return JSON.stringify(value);
  const [opening, closing] = Array.isArray(value) ? "[]" : "{}";
  const parts = members(value).map(([key, part]) => `${key}${oneLine(part)}`);
  return `${opening}${parts.join(", ")}${closing}`;
}

function isNested(value) {
  return typeof value === "object" && value !== null && !JSON.isRawJSON?.(value);
}

/** The parts of an array or object, each with the text that precedes it. */
function members(value) {
  if (Array.isArray(value)) return value.map((part) => ["", part]);
  return Object.entries(value).map(([key, part]) => [`${JSON.stringify(key)}: `, part]);
}
