"""Commands that hand their arguments on to git as they are, but for a few options of their own."""

from __future__ import annotations

import click


class Passing(click.Command):
    """A command whose last parameter takes all words that are not flags of its own, options for git among them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts if name.startswith("-")}
        ours = [word for word in args[:end] if word in known]
        return super().parse_args(ctx, [*ours, "--", *(word for word in args[:end] if word not in known), *args[end:]])
