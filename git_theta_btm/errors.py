"""Everything that can go wrong, and the exit code it ends with.

ThetaError                128  one clear line: what, where, and what to type next
|-- FormatError                bytes are not the container they look like (never shown: the file is stored opaque)
|-- ManifestError              text that starts like a manifest but is none
|   `-- ConflictMarkers        a text merge went through a manifest
|-- ObjectError                something in the object store
|   |-- MissingObject          it is not here
|   `-- CorruptObject          it is here, and its bytes are wrong
|-- MergeConflict              models that no rule says how to merge
`-- UsageError            129  the command line makes no sense
"""


class ThetaError(Exception):
    """Base of all errors that are shown to the user as one line."""

    exit_code = 128


class FormatError(ThetaError):
    """The bytes are not what a container format promises."""


class ManifestError(ThetaError):
    """A manifest that does not parse, or is not in canonical form."""


class ConflictMarkers(ManifestError):
    """A manifest with conflict markers in it: a text merge was left unresolved."""


class ObjectError(ThetaError):
    """An object of the store cannot be used."""


class MissingObject(ObjectError):
    """An object that a manifest needs is not in the store."""


class CorruptObject(ObjectError):
    """An object's bytes are not those that its name or its tensor's digest promises."""


class MergeConflict(ThetaError):
    """Parameters of which no rule says how they are merged."""


class UsageError(ThetaError):
    """The command line cannot be understood."""

    exit_code = 129
