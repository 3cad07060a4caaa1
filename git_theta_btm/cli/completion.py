"""``git theta completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from . import COMPLETE, theta
from .console import data

# What git's own completion calls for 'git theta', beside click's for 'git-theta'.
_WRAPPERS = {
    # git's completion leaves the line in words and cword; __git_cmd_idx, where theta stands, is there since 2.31. An
    # answer of nothing has it go on to file names.
    "bash": """
_git_theta() {
    local IFS=$'\\n' answer at=${__git_cmd_idx:-1}
    COMPREPLY=()
    for answer in $(env COMP_WORDS="${words[*]:at}" COMP_CWORD=$((cword - at)) %s=bash_complete git-theta); do
        [[ $answer == plain,* ]] && COMPREPLY+=("${answer#*,}")
    done
}
""",
    "zsh": """
_git-theta() {
    _git_theta_completion "$@"
}
zstyle ':completion:*:*:git:*' user-commands theta:'version models parameter by parameter'
""",
    "fish": """
function __git_theta_answers
    set -l line (commandline -cp | string replace -r '^\\s*git\\s+' '')
    for answer in (env %s=fish_complete COMP_WORDS="$line" COMP_CWORD=(commandline -t) git-theta)
        switch $answer
            case 'plain,*'
                string replace 'plain,' '' -- $answer
            case '*'
                __fish_complete_path (commandline -ct)
        end
    end
end
complete --no-files --command git --condition '__fish_git_using_command theta' --arguments '(__git_theta_answers)'
complete --no-files --command git --condition '__fish_git_needs_command' --arguments theta
""",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_WRAPPERS)))
def completion(shell: str) -> None:
    """Print a script that completes commands.

    It does so for both 'git theta' and 'git-theta'. For 'git theta', git's own completion must be there.

    \b
    Example:
      eval "$(git theta completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None
    data(kind(theta, {}, "git-theta", COMPLETE).source())
    data(_WRAPPERS[shell].replace("%s", COMPLETE))
