//! The paths of a service: its service file, and the files of the watcher that it starts.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use orphand::store::folders::Folders;
use orphand::store::regular_file::read_regular;
use rustix::process::geteuid;

use super::job::{InstalledService, Job, Scope, UnsupportedPath};
use super::{launchd, systemd};
use crate::cli::config::Config;

/// The most bytes that are read of a service file.
const LARGEST: u64 = 1_000_000;

/// The system program that starts the service, and restarts it when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceManager {
    Launchd,
    Systemd,
}

impl ServiceManager {
    /// The service manager of this system.
    pub(super) const OURS: ServiceManager = match cfg!(target_os = "macos") {
        true => ServiceManager::Launchd,
        false => ServiceManager::Systemd,
    };

    pub(super) fn name(self) -> &'static str {
        match self {
            ServiceManager::Launchd => "launchd",
            ServiceManager::Systemd => "systemd",
        }
    }
}

/// One service: its service manager, its scope, and its folders.
#[derive(Clone, Debug)]
pub(super) struct ServicePaths {
    pub(super) manager: ServiceManager,
    pub(super) scope: Scope,
    /// The home directory of the user, for both scopes.
    home: PathBuf,
    /// The prefix of all system paths: `/`, or the root of an image that is being built, or of a test.
    machine_root: PathBuf,
    /// The folders of this process.
    own_folders: Folders,
}

impl ServicePaths {
    /// Returns the service by the environment, or `None` if the home directory is not known.
    pub(super) fn new(manager: ServiceManager, scope: Scope) -> Option<ServicePaths> {
        let home = absolute_variable("HOME").or_else(|| {
            (scope == Scope::System).then(|| match manager {
                ServiceManager::Launchd => PathBuf::from("/var/root"),
                ServiceManager::Systemd => PathBuf::from("/root"),
            })
        })?;
        Some(ServicePaths {
            manager,
            scope,
            home,
            machine_root: absolute_variable("ORPHAND_SERVICE_ROOT").unwrap_or_else(|| "/".into()),
            own_folders: Folders::from_env(),
        })
    }

    /// Returns the name for the kind of service file, for people, with a capital letter.
    pub(super) fn kind_name(&self) -> &'static str {
        match (self.manager, self.scope) {
            (ServiceManager::Launchd, Scope::User) => "Agent",
            (ServiceManager::Launchd, Scope::System) => "Daemon",
            (ServiceManager::Systemd, _) => "Unit",
        }
    }

    /// Returns the name of the service for the service manager.
    pub(super) fn name(&self) -> &'static str {
        match self.manager {
            ServiceManager::Launchd => launchd::LABEL,
            ServiceManager::Systemd => systemd::UNIT,
        }
    }

    /// Returns the command line of `orphand service VERB` for this service.
    pub(super) fn command(&self, verb: &str) -> String {
        let mut command = format!("orphand service {verb}");
        if self.scope == Scope::System {
            command.push_str(" --system");
        }
        if self.manager != ServiceManager::OURS {
            command.push_str(&format!(" --{}", self.manager.name()));
        }
        command
    }

    /// Returns the path of the service file.
    pub(super) fn file(&self) -> PathBuf {
        let [user, system] = self.file_folders();
        let folder = match self.scope {
            Scope::User => user,
            Scope::System => system,
        };
        match self.manager {
            ServiceManager::Launchd => folder.join(format!("{}.plist", launchd::LABEL)),
            ServiceManager::Systemd => folder.join(systemd::UNIT),
        }
    }

    /// Returns the folders of the service files of this user and of the machine.
    fn file_folders(&self) -> [PathBuf; 2] {
        match self.manager {
            ServiceManager::Launchd => [
                self.home.join("Library/LaunchAgents"),
                self.below_machine_root("Library/LaunchDaemons"),
            ],
            ServiceManager::Systemd => [
                absolute_variable("XDG_CONFIG_HOME")
                    .unwrap_or_else(|| self.home.join(".config"))
                    .join("systemd/user"),
                self.below_machine_root("etc/systemd/system"),
            ],
        }
    }

    fn below_machine_root(&self, below: &str) -> PathBuf {
        self.machine_root.join(below)
    }

    /// Returns the service file that Homebrew has installed for orphand, if there is one.
    pub(super) fn homebrew_file(&self) -> Option<PathBuf> {
        let name = match self.manager {
            ServiceManager::Launchd => "homebrew.mxcl.orphand.plist",
            ServiceManager::Systemd => "homebrew.orphand.service",
        };
        let mut files = self
            .file_folders()
            .into_iter()
            .map(|folder| folder.join(name));
        files.find(|file| file.symlink_metadata().is_ok())
    }

    /// Returns the folders of the service's watcher.
    pub(super) fn folders(&self) -> Folders {
        let (state, runtime) = match (self.scope, self.manager) {
            (Scope::User, _) => return self.own_folders.clone(),
            (Scope::System, ServiceManager::Launchd) => {
                let state = self.below_machine_root("Library/Application Support/orphand");
                (state.clone(), state)
            }
            (Scope::System, ServiceManager::Systemd) => (
                self.below_machine_root("var/lib/orphand"),
                self.below_machine_root("run/orphand"),
            ),
        };
        Folders {
            state: Some(state),
            runtime: Some(runtime),
        }
    }

    /// Returns the configuration file that its watcher reads if none is named.
    pub(super) fn default_config(&self) -> Option<PathBuf> {
        match self.scope {
            Scope::User => Config::default_path(),
            Scope::System => Some(self.below_machine_root("etc/orphand/config.toml")),
        }
    }

    /// Returns the log file that its watcher writes. Under systemd its journal has the log instead.
    pub(super) fn log(&self) -> Option<PathBuf> {
        let folder = match cfg!(target_os = "macos") {
            true => self.logs(),
            false => self.folders().state?,
        };
        Some(folder.join("orphand.log"))
    }

    /// Returns the file to which launchd redirects stderr, which only a crash writes to.
    pub(super) fn crash_log(&self) -> PathBuf {
        self.logs().join("crash.log")
    }

    /// Returns the folder of the logs, which Console.app shows.
    fn logs(&self) -> PathBuf {
        match self.scope {
            Scope::User => self.home.join("Library/Logs/orphand"),
            Scope::System => self.below_machine_root("var/root/Library/Logs/orphand"),
        }
    }

    /// Returns the environment variables that its watcher needs.
    fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let fixed: &[(&'static str, &str)] = match (self.scope, self.manager) {
            (Scope::User, _) => return self.shell_folders(),
            (Scope::System, ServiceManager::Launchd) => &[
                ("HOME", "/var/root"),
                ("XDG_CONFIG_HOME", "/etc"),
                ("XDG_STATE_HOME", "/Library/Application Support"),
            ],
            (Scope::System, ServiceManager::Systemd) => &[
                ("XDG_CONFIG_HOME", "/etc"),
                ("XDG_STATE_HOME", "/var/lib"),
                ("XDG_RUNTIME_DIR", "/run"),
            ],
        };
        let path = |(name, value): &(&'static str, &str)| (*name, PathBuf::from(value));
        fixed.iter().map(path).collect()
    }

    /// Returns the variables that are set to folders other than the default ones. Without them, the watcher and the
    /// commands in the shell would use different folders.
    fn shell_folders(&self) -> Vec<(&'static str, PathBuf)> {
        let known = [
            ("XDG_CONFIG_HOME", Some(self.home.join(".config"))),
            (
                "XDG_STATE_HOME",
                (!cfg!(target_os = "macos")).then(|| self.home.join(".local/state")),
            ),
            ("XDG_RUNTIME_DIR", None),
        ];
        let set = |(name, default): (&'static str, Option<PathBuf>)| {
            // systemd sets this variable itself at each login.
            if name == "XDG_RUNTIME_DIR" && self.manager == ServiceManager::Systemd {
                return None;
            }
            let value = absolute_variable(name)?;
            (Some(&value) != default.as_ref()).then_some((name, value))
        };
        known.into_iter().filter_map(set).collect()
    }

    /// Returns the job for this service.
    pub(super) fn job(&self, program: PathBuf, config: Option<PathBuf>) -> Job {
        Job {
            scope: self.scope,
            program,
            config,
            environment: self.environment(),
            crash_log: self.installed_path(&self.crash_log()),
            run_as: None,
        }
    }

    /// Returns a path without the prefix of the image, as the service will see it.
    fn installed_path(&self, path: &Path) -> PathBuf {
        match (self.scope, path.strip_prefix(&self.machine_root)) {
            (Scope::System, Ok(below)) => Path::new("/").join(below),
            _ => path.to_owned(),
        }
    }

    /// Returns the text of the service file for `job`.
    pub(super) fn render(&self, job: &Job) -> Result<String, UnsupportedPath> {
        match self.manager {
            ServiceManager::Launchd => launchd::render(job),
            ServiceManager::Systemd => systemd::render(job),
        }
    }

    /// Parses a service file.
    pub(super) fn read(&self, file: &str) -> Option<InstalledService> {
        match self.manager {
            ServiceManager::Launchd => launchd::read(file),
            ServiceManager::Systemd => systemd::read(file),
        }
    }

    /// Returns the content of the installed service file, or `None` if there is none.
    pub(super) fn installed(&self) -> io::Result<Option<Vec<u8>>> {
        match read_regular(&self.file(), LARGEST) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the command in the installed service file, or `None` if the file cannot be read or is not ours.
    pub(super) fn installed_service(&self) -> Option<InstalledService> {
        self.read(&String::from_utf8(self.installed().ok()??).ok()?)
    }

    /// Returns whether the home directory belongs to this user. After `sudo` it may be another user's. A service file
    /// of root's there would be refused by launchd, and its user could not remove it.
    pub(super) fn is_home_ours(&self) -> bool {
        let owner = fs::metadata(&self.home).map(|home| home.uid());
        owner.map_or(true, |owner| owner == geteuid().as_raw())
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }
}

/// Returns the folder in an environment variable. A relative path is ignored.
fn absolute_variable(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(name)?);
    folder.is_absolute().then_some(folder)
}
