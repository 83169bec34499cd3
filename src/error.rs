//! The one error of this crate.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A [`Result`](std::result::Result) whose error is kiln's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with what value, and what to do about it.
///
/// The type is opaque: ask it with its predicates, show it with `Display`, and follow
/// [`source`](StdError::source) to the cause where there is one. No type of another crate appears in it, so
/// that kiln can change what it stands on without breaking its users.
///
/// ```
/// use kiln::{Kiln, NewJob};
///
/// let kiln = Kiln::in_memory()?;
/// let error = kiln.enqueue(NewJob::new("mailer").priority(10)).unwrap_err();
///
/// assert!(error.is_invalid());
/// assert_eq!(error.field(), Some("priority"));
/// assert_eq!(error.to_string(), "priority must be between 0 and 9, got 10");
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value the caller gave; the field it was given for.
    Invalid(&'static str),
    /// The file cannot be opened as it is.
    Unusable,
    /// The file was written by a kiln this one does not understand.
    Incompatible,
    /// Somebody else held the write lock for longer than we wait.
    Busy,
    /// No space left.
    Full,
    /// A stored value is not what it should be.
    Malformed,
    /// The database failed in another way.
    Storage,
    /// An attempt is no longer its job's.
    Lost,
    /// The machine did not give what a runtime needs: a thread, a sidecar.
    Runtime,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Invalid(field), message)
    }

    /// An [`invalid`](Self::invalid) error of the form "`field` must `must`, got `got`".
    pub(crate) fn must(field: &'static str, must: &str, got: impl fmt::Debug) -> Self {
        Self::invalid(field, format!("{field} must {must}, got {got:?}"))
    }

    /// [`must`](Self::must) unless the condition holds.
    pub(crate) fn unless(holds: bool, field: &'static str, must: &str, got: impl fmt::Debug) -> Result<()> {
        if holds { Ok(()) } else { Err(Self::must(field, must, got)) }
    }

    /// An [`invalid`](Self::invalid) error if the value is blank.
    pub(crate) fn if_blank(field: &'static str, value: &str) -> Result<()> {
        Self::unless(!value.trim().is_empty(), field, "not be blank", value)
    }

    pub(crate) fn lost(attempt: impl fmt::Debug) -> Self {
        Self::new(Kind::Lost, format!("the attempt is no longer the job's, nothing was written: {attempt:?}"))
    }

    pub(crate) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Malformed, message)
    }

    pub(crate) fn because(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Arc::new(Inner { kind: self.0.kind, message: self.0.message.clone(), source: Some(source.into()) }))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// A value given by the caller was refused; nothing was written. [`field`](Self::field) names it.
    pub fn is_invalid(&self) -> bool {
        matches!(self.0.kind, Kind::Invalid(_))
    }

    /// The field whose value was refused, where [`is_invalid`](Self::is_invalid).
    pub fn field(&self) -> Option<&'static str> {
        match self.0.kind {
            Kind::Invalid(field) => Some(field),
            _ => None,
        }
    }

    /// The path cannot be used as it is: a directory, not a database, read-only or opened so, in a missing folder, on a
    /// network or FUSE file system.
    pub fn is_unusable(&self) -> bool {
        self.0.kind == Kind::Unusable
    }

    /// The file was written by a newer kiln that this one does not understand. It was not touched; where that happened
    /// while it was open here, nothing is written from then on.
    pub fn is_incompatible(&self) -> bool {
        self.0.kind == Kind::Incompatible
    }

    /// Another process held the database's write lock for longer than kiln waits. Trying again may help.
    pub fn is_busy(&self) -> bool {
        self.0.kind == Kind::Busy
    }

    /// The disk, or the space the database may use, is full. Nothing was written.
    pub fn is_full(&self) -> bool {
        self.0.kind == Kind::Full
    }

    /// Whether it is of the file and not of what was to be written: nothing at all can be, for now or for good.
    pub(crate) fn is_of_the_file(&self) -> bool {
        matches!(self.0.kind, Kind::Busy | Kind::Full | Kind::Incompatible)
    }

    /// The attempt is no longer the job's: it was rescued, written off, or given back. What it does now is void, so it
    /// had better end.
    pub fn is_lost(&self) -> bool {
        self.0.kind == Kind::Lost
    }

    /// A stored value is not what it should be: arguments that are no JSON, a recorded value that is damaged.
    pub fn is_malformed(&self) -> bool {
        self.0.kind == Kind::Malformed
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
