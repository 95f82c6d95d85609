"""CartPole with a pole of any length: a world that can change under a policy."""

from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Pole(CartPoleEnv):
    """Gymnasium's CartPole but for the pole, whose mass stays 0.1 kg."""

    def __init__(self, length: float = 0.5, render_mode: str | None = None) -> None:
        """Take half the length of the pole, in metres: Gymnasium's own is 0.5."""
        super().__init__(render_mode=render_mode)
        self.length = length
        self.polemass_length = self.masspole * length
