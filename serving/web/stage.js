/** Draws one cart, or many in a grid. */

import { ANGLE_LIMIT, POLE_LENGTH, POSITION_LIMIT } from "./physics.js";

/** Metres shown: the whole track, and the pole upright above the cart. */
const WORLD_WIDTH = 2 * POSITION_LIMIT + 0.6;
const WORLD_HEIGHT = 1.75;
const GROUND = 0.25;
const CART_WIDTH = 0.42;
const CART_HEIGHT = 0.25;

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

/** Draw carts; of several, the first has a frame. */
export function drawCarts(canvas, carts, colors) {
  const { context, width, height } = prepare(canvas);
  const columns = Math.ceil(Math.sqrt(carts.length));
  const cell = {
    width: width / columns,
    height: height / Math.ceil(carts.length / columns),
  };
  carts.forEach((cart, index) => {
    const left = (index % columns) * cell.width;
    const top = Math.floor(index / columns) * cell.height;
    const view = viewOf(left, top, cell);
    drawTrack(context, view, colors, carts.length === 1);
    drawCart(context, view, cart, colors);
    if (index === 0 && carts.length > 1) {
      context.strokeStyle = colors.right;
      context.lineWidth = 2;
      context.strokeRect(left + 1, top + 1, cell.width - 2, cell.height - 2);
    }
  });
}

/** Where a pointer is on the stage of a single cart, in metres; y is 0 at the pole's joint. */
export function worldAt(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const view = viewOf(0, 0, box);
  return {
    x: (event.clientX - box.left - view.x) / view.scale,
    y: (view.y - (event.clientY - box.top)) / view.scale - CART_HEIGHT,
  };
}

/** Centre, ground line and pixels per metre of a cell. */
function viewOf(left, top, { width, height }) {
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

function drawCart(context, view, cart, colors) {
  const [position, , angle] = cart.state;
  const { scale } = view;
  context.save();
  context.translate(view.x + position * scale, view.y);
  context.globalAlpha = cart.ended && !cart.fell ? 0.5 : 1;

  context.fillStyle = cart.fell ? colors.bad : colors.ink;
  const [cartWidth, cartHeight] = [CART_WIDTH * scale, CART_HEIGHT * scale];
  context.fillRect(-cartWidth / 2, -cartHeight, cartWidth, cartHeight);
  drawPush(context, scale, cart, colors);

  context.translate(0, -cartHeight);
  drawLimits(context, scale, colors);
  context.rotate(angle);
  context.strokeStyle = cart.fell ? colors.bad : colors.pole;
  context.lineWidth = Math.max(1.5, 0.08 * scale);
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
