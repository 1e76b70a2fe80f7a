//! What the process was started in: environment, terminals, folders. Read once.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The environment and the terminals of one run, as a value that is passed down.
#[derive(Clone)]
pub struct Surroundings {
    variables: BTreeMap<OsString, OsString>,
    /// The program itself, for the exec stanza of a kubeconfig.
    pub(crate) program: PathBuf,
    pub(crate) stdin_is_terminal: bool,
    pub(crate) stdout_is_terminal: bool,
    pub(crate) stderr_is_terminal: bool,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            program: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("culvert")),
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// A variable of the environment; one that is set but empty counts as not set.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The same as text; `None` when it is not Unicode.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.variable(name).and_then(OsStr::to_str)
    }

    /// The file that holds the contexts: `CULVERT_CONFIG`, else the XDG folder.
    pub(crate) fn config_file(&self) -> PathBuf {
        if let Some(file) = self.variable("CULVERT_CONFIG") {
            return PathBuf::from(file);
        }
        let folder = match self.variable("XDG_CONFIG_HOME").map(Path::new).filter(|p| p.is_absolute()) {
            Some(folder) => folder.to_path_buf(),
            None => self.home().join(".config"),
        };
        folder.join("culvert").join("config.toml")
    }

    /// The kubeconfig that a merge writes: kubectl's rule, the first file of
    /// `KUBECONFIG` that exists, else its last entry, else `~/.kube/config`.
    pub(crate) fn kubeconfig_file(&self) -> PathBuf {
        let listed: Vec<PathBuf> = self
            .variable("KUBECONFIG")
            .map(|list| std::env::split_paths(list).filter(|p| !p.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        match listed.iter().find(|file| file.exists()).or(listed.last()) {
            Some(file) => file.clone(),
            None => self.home().join(".kube").join("config"),
        }
    }

    /// The first program of that name in `PATH`.
    pub(crate) fn find_program(&self, name: &str) -> Option<PathBuf> {
        let path = self.variable("PATH")?;
        std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| is_program(file))
    }

    /// Colour on a stream: never with `NO_COLOR` or `TERM=dumb`, always with
    /// `CLICOLOR_FORCE`, else only on a terminal.
    pub(crate) fn colour(&self, is_terminal: bool) -> bool {
        if self.variable("NO_COLOR").is_some() {
            return false;
        }
        if self.variable("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
            return true;
        }
        is_terminal && !self.dumb()
    }

    /// Whether the terminal cannot move its cursor.
    pub(crate) fn dumb(&self) -> bool {
        self.variable("TERM").is_none_or(|term| term == "dumb")
    }

    fn home(&self) -> PathBuf {
        self.variable("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from)
    }
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
impl Surroundings {
    /// Surroundings made of nothing but these variables, without a terminal.
    pub(crate) fn made_of(variables: &[(&str, &OsStr)]) -> Self {
        Self {
            variables: variables.iter().map(|(k, v)| (OsString::from(k), (*v).to_owned())).collect(),
            program: PathBuf::from("/usr/bin/culvert"),
            stdin_is_terminal: false,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Surroundings {
        let owned: Vec<(&str, &OsStr)> = variables.iter().map(|(k, v)| (*k, OsStr::new(*v))).collect();
        Surroundings::made_of(&owned)
    }

    #[test]
    fn colour_follows_the_conventions() {
        assert!(with(&[("TERM", "xterm")]).colour(true));
        assert!(!with(&[("TERM", "xterm")]).colour(false));
        assert!(!with(&[("TERM", "dumb")]).colour(true));
        assert!(!with(&[]).colour(true));
        assert!(with(&[("CLICOLOR_FORCE", "1")]).colour(false));
        assert!(!with(&[("CLICOLOR_FORCE", "0")]).colour(false));
        assert!(!with(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).colour(true));
        assert!(with(&[("TERM", "xterm"), ("NO_COLOR", "")]).colour(true));
    }

    #[test]
    fn a_relative_xdg_folder_is_ignored() {
        let surroundings = with(&[("XDG_CONFIG_HOME", "somewhere"), ("HOME", "/home/u")]);
        assert_eq!(surroundings.config_file(), Path::new("/home/u/.config/culvert/config.toml"));
    }

    #[test]
    fn a_merge_goes_where_kubectl_would_write() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, present) = (folder.path().join("missing"), folder.path().join("present"));
        std::fs::write(&present, "").unwrap();
        let both = std::env::join_paths([&missing, &present]).unwrap();
        let found = Surroundings::made_of(&[("KUBECONFIG", &both)]).kubeconfig_file();
        assert_eq!(found, present);
        let none = std::env::join_paths([folder.path().join("a"), missing.clone()]).unwrap();
        assert_eq!(Surroundings::made_of(&[("KUBECONFIG", &none)]).kubeconfig_file(), missing);
        let home = with(&[("HOME", "/home/u")]).kubeconfig_file();
        assert_eq!(home, Path::new("/home/u/.kube/config"));
    }
}
