//! A file for one test.

use std::path::PathBuf;

use crate::dice::Dice;
use crate::error::{Error, Kind, Result};
use crate::kiln::{Kiln, KilnBuilder};

/// A file of jobs in a folder of its own, for what memory cannot show: several handles, processes, a restart. The folder
/// goes with it; drop the handles before.
///
/// ```
/// use kiln::NewJob;
/// use kiln::testing::Scratch;
///
/// let scratch = Scratch::new()?;
/// let id = scratch.open()?.enqueue(NewJob::new("app.Mailer"))?.id;
/// assert!(scratch.open()?.get(id)?.is_some(), "it is on the disk");
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Makes the folder, where the system keeps its temporary ones.
    ///
    /// # Errors
    ///
    /// [`is_unusable`](Error::is_unusable) when it cannot be made.
    pub fn new() -> Result<Scratch> {
        let folder = std::env::temp_dir().join(format!("kiln-{}", Dice::new().name()));
        std::fs::create_dir(&folder).map_err(|error| {
            let message = format!("cannot make the folder {}", folder.display());
            Error::new(Kind::Unusable, message).because(error)
        })?;
        Ok(Scratch { folder })
    }

    /// Where the file is, or will be.
    pub fn path(&self) -> PathBuf {
        self.folder.join("jobs.db")
    }

    /// Opens the file.
    ///
    /// # Errors
    ///
    /// As [`Kiln::open`].
    pub fn open(&self) -> Result<Kiln> {
        Kiln::open(self.path())
    }

    /// Opens the file with other settings, a [clock](KilnBuilder::clock) among them.
    pub fn builder(&self) -> KilnBuilder {
        Kiln::builder(self.path())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Where something still holds it, the system clears it away some day.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
