/** Draws one cart, or many in a grid. */

import { ANGLE_LIMIT, POLE_LENGTH, POSITION_LIMIT } from "./physics.js";

/** Metres shown: the whole track, and the pole upright above the cart. */
const WORLD_WIDTH = 2 * POSITION_LIMIT + 0.6;
const WORLD_HEIGHT = 1.75;
const GROUND = 0.25;
const CART_WIDTH = 0.42;
const CART_HEIGHT = 0.25;
/** With many carts on one track, all but the first are drawn as a thin line, their pole. */
const OPACITY_BEHIND = 0.4;

/** The current colours of the style sheet. */
export function pageColors() {
  const style = getComputedStyle(document.documentElement);
  const names = ["surface", "ink", "muted", "line", "left", "right", "pole", "bad", "value"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`)]));
}

/** Size a canvas to its box in device pixels and clear it; returns a context in CSS pixels. */
export function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** A small text that can be read on whatever is below it. */
export function drawLabel(context, text, align, left, top, colors) {
  context.font = "11px system-ui, sans-serif";
  context.textAlign = align;
  context.lineJoin = "round";
  context.lineWidth = 6;
  context.strokeStyle = colors.surface;
  context.strokeText(text, left, top);
  context.fillStyle = colors.ink;
  context.fillText(text, left, top);
}

/** Up to this many carts are drawn in cells of their own; more are drawn on one track. */
const MOST_CELLS = 16;

/** Draw carts; the first one is the one that the page's numbers are about. */
export function drawCarts(canvas, carts, colors) {
  const { context, width, height } = prepare(canvas);
  const cells = cellsOf(carts.length, width, height);
  const detailed = cells.length === 1;
  for (const cell of cells) drawTrack(context, viewOf(cell), colors, detailed);
  // Draw the first cart last: it is in front if all are on one track.
  for (const [index, cart] of [...carts.entries()].reverse()) {
    const isBehind = carts.length > cells.length && index > 0;
    drawCart(context, viewOf(cells[index % cells.length]), cart, colors, isBehind);
  }
  if (cells.length === 2) carts.forEach((cart, i) => drawTitle(context, cells[i], cart, colors));
  else if (cells.length > 1) drawFrame(context, cells[0], colors);
}

/** Where a pointer is, in metres from the middle and above the joint, and at which cart. */
export function worldAt(canvas, event, count) {
  const box = canvas.getBoundingClientRect();
  const [left, top] = [event.clientX - box.left, event.clientY - box.top];
  const cells = cellsOf(count, box.width, box.height);
  const inside = (cell) =>
    left >= cell.left && left < cell.left + cell.width &&
    top >= cell.top && top < cell.top + cell.height;
  const index = Math.max(0, cells.findIndex(inside));
  const view = viewOf(cells[index]);
  return { index, x: (left - view.x) / view.scale, y: (view.y - top) / view.scale - CART_HEIGHT };
}

/** The parts of the picture, one for each cart, or one for all. */
function cellsOf(count, width, height) {
  const shown = count > MOST_CELLS ? 1 : count;
  const columns = Math.ceil(Math.sqrt(shown));
  const size = { width: width / columns, height: height / Math.ceil(shown / columns) };
  return Array.from({ length: shown }, (_, i) => ({
    left: (i % columns) * size.width,
    top: Math.floor(i / columns) * size.height,
    ...size,
  }));
}

/** Centre, ground line and pixels per metre of a cell. */
function viewOf({ left, top, width, height }) {
  const scale = Math.min(width / WORLD_WIDTH, height / WORLD_HEIGHT);
  const shown = scale * WORLD_HEIGHT;
  return {
    x: left + width / 2,
    y: top + (height + shown) / 2 - GROUND * scale,
    scale,
  };
}

function drawTrack(context, view, colors, detailed) {
  const half = POSITION_LIMIT * view.scale;
  context.strokeStyle = colors.line;
  context.lineWidth = detailed ? 2 : 1;
  context.beginPath();
  context.moveTo(view.x - half, view.y);
  context.lineTo(view.x + half, view.y);
  for (const end of [-half, half]) {
    context.moveTo(view.x + end, view.y - 6);
    context.lineTo(view.x + end, view.y + 6);
  }
  context.stroke();
  if (!detailed) return;
  context.fillStyle = colors.muted;
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  for (let metre = -2; metre <= 2; metre += 1) {
    context.fillText(`${metre} m`, view.x + metre * view.scale, view.y + 0.2 * view.scale);
  }
}

function drawTitle(context, { left, width }, { version: { title } }, colors) {
  context.fillStyle = colors.muted;
  context.font = "13px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillText(title, left + width / 2, 18);
}

function drawFrame(context, { left, top, width, height }, colors) {
  context.strokeStyle = colors.right;
  context.lineWidth = 2;
  context.strokeRect(left + 1, top + 1, width - 2, height - 2);
}

function drawCart(context, view, cart, colors, isBehind) {
  const [position, , angle] = cart.state;
  const { scale } = view;
  const hasTimedOut = cart.ended && !cart.fell;
  context.save();
  context.translate(view.x + position * scale, view.y);
  context.globalAlpha = isBehind ? OPACITY_BEHIND : hasTimedOut ? 0.5 : 1;

  const cartHeight = CART_HEIGHT * scale;
  if (!isBehind) {
    const cartWidth = CART_WIDTH * scale;
    context.fillStyle = cart.fell ? colors.bad : colors.ink;
    context.fillRect(-cartWidth / 2, -cartHeight, cartWidth, cartHeight);
    drawPush(context, scale, cart, colors);
  }
  context.translate(0, -cartHeight);
  if (!isBehind) drawLimits(context, scale, colors);
  context.rotate(angle);
  context.strokeStyle = cart.fell ? colors.bad : isBehind ? colors.ink : colors.pole;
  context.lineWidth = isBehind ? 1 : Math.max(1.5, 0.08 * scale);
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(0, 0);
  context.lineTo(0, -POLE_LENGTH * scale);
  context.stroke();
  context.restore();
}

/** A triangle that shows the direction of the last action. */
function drawPush(context, scale, { action }, colors) {
  if (action === null) return;
  const side = action === 1 ? 1 : -1;
  const base = side * (CART_WIDTH / 2 + 0.04) * scale;
  const middle = (-CART_HEIGHT / 2) * scale;
  context.fillStyle = action === 1 ? colors.right : colors.left;
  context.beginPath();
  context.moveTo(base + side * 0.16 * scale, middle);
  context.lineTo(base, middle - 0.09 * scale);
  context.lineTo(base, middle + 0.09 * scale);
  context.fill();
}

/** The two lines beyond which the episode terminates. */
function drawLimits(context, scale, colors) {
  context.strokeStyle = colors.line;
  context.lineWidth = 1;
  context.beginPath();
  for (const angle of [-ANGLE_LIMIT, ANGLE_LIMIT]) {
    context.moveTo(0, 0);
    context.lineTo(Math.sin(angle) * POLE_LENGTH * scale, -Math.cos(angle) * POLE_LENGTH * scale);
  }
  context.stroke();
}
