/**
 * CartPole-v1: the equations of Gymnasium's gymnasium/envs/classic_control/cartpole.py, in the
 * same order of operations, so that the numbers are the same.
 *
 * A state is [cart position m, cart velocity m/s, pole angle rad, pole angular velocity rad/s].
 */

export const STEPS_PER_SECOND = 50;
export const MAX_STEPS = 500;
export const POSITION_LIMIT = 2.4;
export const ANGLE_LIMIT = (12 * 2 * Math.PI) / 360;
export const POLE_LENGTH = 1.0;

const GRAVITY = 9.8;
const CART_MASS = 1.0;
const POLE_MASS = 0.1;
const TOTAL_MASS = POLE_MASS + CART_MASS;
const HALF_LENGTH = POLE_LENGTH / 2;
const POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH;
const FORCE = 10.0;
const TAU = 1 / STEPS_PER_SECOND;

/** An angle in rad as degrees. */
export function degrees(angle) {
  return (angle * 180) / Math.PI;
}

/** Whether a policy is for CartPole as it is here: without wrappers, options or other numbers. */
export function isPlayable({ environment, environment_options: options, observations, actions }) {
  return (
    /^CartPole-v\d+$/.test(environment) &&
    observations.names.length === 4 &&
    actions.names.length === 2 &&
    !options?.wrappers?.length &&
    Object.keys(options?.kwargs ?? {}).length === 0
  );
}

/** The state 20 ms later; action 0 pushes to the left, 1 to the right. */
export function step([x, xDot, theta, thetaDot], action) {
  const force = action === 1 ? FORCE : -FORCE;
  const cos = Math.cos(theta);
  const sin = Math.sin(theta);
  const temp = (force + POLE_MASS_LENGTH * (thetaDot * thetaDot) * sin) / TOTAL_MASS;
  const thetaAcc =
    (GRAVITY * sin - cos * temp) /
    (HALF_LENGTH * (4.0 / 3.0 - (POLE_MASS * (cos * cos)) / TOTAL_MASS));
  const xAcc = temp - (POLE_MASS_LENGTH * thetaAcc * cos) / TOTAL_MASS;
  return [x + TAU * xDot, xDot + TAU * xAcc, theta + TAU * thetaDot, thetaDot + TAU * thetaAcc];
}

/** Whether the episode has terminated: pole angle or cart position beyond its limit. */
export function hasFallen([x, , theta]) {
  return (
    x < -POSITION_LIMIT || x > POSITION_LIMIT || theta < -ANGLE_LIMIT || theta > ANGLE_LIMIT
  );
}

/** The observation of a state: float32, as Gymnasium returns it. */
export function observe(state) {
  return state.map(Math.fround);
}

/** An initial state, each number within ±spread by `random()`, that is not terminal. */
export function startState(spread, random) {
  const within = [0.9 * POSITION_LIMIT, Infinity, 0.9 * ANGLE_LIMIT, Infinity];
  return within.map((limit) => (2 * random() - 1) * Math.min(spread, limit));
}

/**
 * The state after horizontal impulses, in newton seconds, on the cart and on the pole's tip.
 * The jumps in velocity solve the two equations of motion of `step`, with impulses for forces.
 */
export function strike([x, xDot, theta, thetaDot], { cart = 0, tip = 0 }) {
  const cos = Math.cos(theta);
  const sum = cart + tip;
  const thetaJump =
    ((2 * cos * tip) / POLE_MASS - (cos * sum) / TOTAL_MASS) /
    (HALF_LENGTH * (4.0 / 3.0 - (POLE_MASS * (cos * cos)) / TOTAL_MASS));
  const xJump = (sum - POLE_MASS_LENGTH * cos * thetaJump) / TOTAL_MASS;
  return [x, xDot + xJump, theta, thetaDot + thetaJump];
}
