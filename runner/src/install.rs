//! Copies this program to where the containers that come after find it.
use std::io;
use std::path::Path;

/// Copies the running program to `folder/culvert-runner`; a reader finds the old one or the new, whole.
///
/// # Errors
/// What the file system says.
pub fn install(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let beside = folder.join(".culvert-runner.new");
    // The permissions are copied too.
    std::fs::copy("/proc/self/exe", &beside)?;
    std::fs::File::open(&beside)?.sync_all()?;
    std::fs::rename(&beside, folder.join("culvert-runner"))
}
