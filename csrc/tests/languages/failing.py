"""The twin of csrc/examples/failing.c in its mode "numbered"."""

import math
import os
import signal

import numpy as np

from demos_hpc import ModelSpec, Observable, Parameter

LEAKED = []


class Failing:
    spec = ModelSpec(
        "failing", parameters=(Parameter("sigma", default=1.0, lower=1e-3),), observables=(Observable("x"),)
    )

    def log_density(self, x, params):
        value = -0.5 * (x[:, 0] / params[..., 0]) ** 2 - np.log(params[..., 0]) - 0.5 * math.log(2 * math.pi)
        for i, number in enumerate(np.nan_to_num(x[:, 0])):
            value[i] = self.fail(int(number), value[i])
        return value

    def fail(self, number, value):
        if number == 2:
            raise ArithmeticError(f"x is {number}")
        if number == 3:
            return math.nan
        while number == 4:
            signal.pause()
        if number == 5:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 6:
            os._exit(3)
        if number == 7:
            LEAKED.append(bytearray(1000))
        return value
