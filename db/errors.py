"""Everything that `db` raises on purpose.

DatabaseError
├── NotRevivable            what ended stays so, and why
│   └── FilesGone           the files of this study were deleted
├── DifferentRequest        a Transaction UID that a peer used for other instances before
├── IllegalTransition       a state change that the table of transitions does not have
├── NotFound                no row with this key
└── UnknownRevision         the schema is of a newer version of the program
"""

from __future__ import annotations


class DatabaseError(Exception):
    """Something about the database went wrong."""


class NotRevivable(DatabaseError):
    """This job or delivery cannot be brought back; the sentence says what can be done instead."""


class FilesGone(NotRevivable):
    """The files of this study were deleted."""


class DifferentRequest(DatabaseError):
    """The peer used this Transaction UID for other instances before."""


class IllegalTransition(DatabaseError):
    """This state change is not in the table of transitions."""


class NotFound(DatabaseError):
    """There is no such row."""


class UnknownRevision(DatabaseError):
    """The database's schema is of a version that this one does not know."""
