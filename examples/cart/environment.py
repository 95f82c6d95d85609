"""CartPole with any motor: a world that can change under a policy."""

from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Cart(CartPoleEnv):
    """Gymnasium's CartPole but for the force that its motor pushes with."""

    def __init__(self, force: float = 10.0, render_mode: str | None = None) -> None:
        """Take the force in newtons: Gymnasium's own is 10; one below 0 is a reversed motor."""
        super().__init__(render_mode=render_mode)
        self.force_mag = force
