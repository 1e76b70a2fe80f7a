//! The volume: how full it is, and a reserve that is given up so that a full one can be cured.
//!
//! A database whose disk is full cannot even start: it has to write to recover. So the runner refuses new writes while
//! there is still some room, and keeps a file of some size beside the data, which it removes when the engine does not
//! come up for want of room.
use std::fs::File;
use std::io;
use std::path::Path;

use culvert_resources::{WhoCanFix, Why};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Name of the reserve in the volume.
const RESERVE: &str = "reserve";

/// Bytes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// All that can be used.
    pub bytes: u64,
    /// What is free.
    pub free: u64,
}

/// What is to be done about how full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Nothing.
    None,
    /// Nothing changes: between the bounds, so that it does not flap.
    Between,
    /// New writes are refused.
    High,
}

impl Volume {
    /// Measures what a database can use: blocks that are kept back for the superuser do not count, and neither does
    /// what a shared disk has beyond the size that was `asked` for.
    ///
    /// # Errors
    /// What the system says.
    pub fn measure(folder: &Path, asked: Option<i64>) -> io::Result<Self> {
        let found = statvfs(folder)?;
        let used = found.f_blocks.saturating_sub(found.f_bfree);
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Self { bytes: bytes(used.saturating_add(found.f_bavail)), free: bytes(found.f_bavail) }
            .within(asked))
    }

    fn within(self, asked: Option<i64>) -> Self {
        let asked = asked.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(u64::MAX);
        Self { bytes: self.bytes.min(asked), free: self.free.min(asked) }
    }

    /// Free bytes below which new writes are refused: 3 % of the volume, at least four segments of PostgreSQL's log
    /// (16 MiB each), at most 2 GiB; never more than a quarter.
    #[must_use]
    pub fn low(self) -> u64 {
        (self.bytes / 100 * 3).clamp(64 << 20, 2 << 30).min(self.bytes / 4)
    }

    /// Bytes of the reserve: at its smallest two segments, as a recovery ends with a new one.
    #[must_use]
    pub fn reserve(self) -> u64 {
        self.low() / 2
    }

    /// How full it is.
    #[must_use]
    pub fn pressure(self) -> Pressure {
        if self.free < self.low() {
            Pressure::High
        } else if self.free < self.low().saturating_mul(3) / 2 {
            Pressure::Between
        } else {
            Pressure::None
        }
    }

    /// Why, in words.
    #[must_use]
    pub fn why(self) -> Why {
        let mib = |bytes: u64| bytes >> 20;
        Why {
            code: "disk_full".to_owned(),
            message: format!(
                "the volume is nearly full: {} MiB of {} MiB are free, so new writes are refused",
                mib(self.free),
                mib(self.bytes)
            ),
            who: WhoCanFix::Developer,
            next: "raise spec.storage.size, or log in as administrator and delete data".to_owned(),
            object: None,
        }
    }
}

/// Makes the reserve when there is room enough for it.
///
/// # Errors
/// What the system says.
pub fn keep_reserve(folder: &Path, volume: Volume) -> io::Result<()> {
    let path = folder.join(RESERVE);
    if path.exists() || volume.free < volume.low().saturating_mul(3) {
        return Ok(());
    }
    let file = File::create(&path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, volume.reserve().max(1)) {
        Ok(()) => Ok(()),
        // A file system without reserved space: nothing is gained by a file of holes.
        Err(rustix::io::Errno::OPNOTSUPP) => std::fs::remove_file(&path),
        Err(error) => {
            std::fs::remove_file(&path)?;
            Err(error.into())
        }
    }
}

/// Gives the reserve up. True when there was one.
///
/// # Errors
/// What the system says.
pub fn give_up_reserve(folder: &Path) -> io::Result<bool> {
    match std::fs::remove_file(folder.join(RESERVE)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn writes_are_refused_while_there_is_room_to_recover() {
        for gib in [1, 10, 1000] {
            let volume = |free| Volume { bytes: gib * GIB, free };
            let low = volume(0).low();
            assert!((64 << 20..=2 * GIB).contains(&low), "{gib}");
            assert!(low + volume(0).reserve() < gib * GIB / 10);
            assert_eq!(volume(low - 1).pressure(), Pressure::High);
            assert_eq!(volume(low).pressure(), Pressure::Between);
            assert_eq!(volume(low * 2).pressure(), Pressure::None);
        }
    }

    #[test]
    fn a_folder_of_a_large_disk_is_as_large_as_was_asked() {
        let disk = Volume { bytes: 100 * GIB, free: 5 * GIB };
        assert_eq!(disk.within(None), disk);
        assert_eq!(disk.within(Some(1 << 30)), Volume { bytes: GIB, free: GIB });
        assert_eq!(disk.within(Some(200 << 30)), disk, "a volume that has not grown yet");
        let full = Volume { free: 10 << 20, ..disk }.within(Some(1 << 30));
        assert_eq!(full.pressure(), Pressure::High);
    }

    #[test]
    fn blocks_kept_back_for_the_superuser_are_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (found, volume) =
            (statvfs(folder.path()).unwrap(), Volume::measure(folder.path(), None).unwrap());
        let kept_back = found.f_bfree - found.f_bavail;
        assert!(volume.bytes <= (found.f_blocks - kept_back) * found.f_frsize + (64 << 20));
        assert!(volume.free <= volume.bytes);
    }

    #[test]
    fn the_reserve_of_the_smallest_volume_lets_a_recovery_end() {
        let volume = Volume { bytes: 256 << 20, free: 200 << 20 };
        assert!(volume.reserve() >= 32 << 20);
        assert!(volume.low() + volume.reserve() < volume.bytes / 2);
    }

    #[test]
    fn the_reserve_is_made_once_and_given_up_once() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume { bytes: 64 << 20, free: 60 << 20 };
        keep_reserve(folder.path(), volume).unwrap();
        if folder.path().join(RESERVE).exists() {
            assert!(std::fs::metadata(folder.path().join(RESERVE)).unwrap().len() > 1 << 20);
            assert!(give_up_reserve(folder.path()).unwrap());
        }
        assert!(!give_up_reserve(folder.path()).unwrap());
        keep_reserve(folder.path(), Volume { free: 0, ..volume }).unwrap();
        assert!(!folder.path().join(RESERVE).exists());
    }
}
