"""CartPole with a motor of any force: a world that can change under a policy."""

from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Cart(CartPoleEnv):
    """Gymnasium's CartPole, except for the force of its motor."""

    def __init__(self, force: float = 10.0, render_mode: str | None = None) -> None:
        """Take the force in newtons: Gymnasium's own is 10; a negative one reverses the motor."""
        super().__init__(render_mode=render_mode)
        self.force_mag = force
