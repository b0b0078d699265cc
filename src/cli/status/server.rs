//! Answers `orphand status`: a socket in the runtime folder, which only this user may enter.
//!
//! It says what it is in memory and asks the system nothing, so that a root that hangs makes nobody
//! else hang. It never hears: who connects is answered, and that is all.

use std::fs;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::answer::answer;
use crate::cli::watch_status::WatchStatus;

/// How the name of a socket begins, before the pid.
pub(crate) const PREFIX: &str = "watch-";
/// How it ends.
pub(crate) const SUFFIX: &str = ".sock";

/// Answers while it lives.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The longest time that a client may take to read its answer.
const READ_LIMIT: Duration = Duration::from_secs(2);

impl Server {
    /// Begins to answer, in the folder `runtime`.
    pub(crate) fn start(runtime: &Path, board: Arc<WatchStatus>) -> io::Result<Server> {
        let make = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(runtime);
        make?;
        let path = runtime.join(format!("{PREFIX}{}{SUFFIX}", std::process::id()));
        // Another process had this number, and was killed.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        // RACE: until the next line it has the mode that the umask gives it; worst case: where the
        // folder was there before and is open to others, one of them reads what is watched.
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = {
            let stopping = Arc::clone(&stopping);
            let thread = std::thread::Builder::new().name("orphand-status".into());
            thread.spawn(move || serve(&listener, &board, &stopping))?
        };
        Ok(Server {
            path,
            stopping,
            thread: Some(thread),
        })
    }
}

fn serve(listener: &UnixListener, board: &WatchStatus, stopping: &AtomicBool) {
    for client in listener.incoming() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let told = client.and_then(|mut client| {
            client.set_write_timeout(Some(READ_LIMIT))?;
            writeln!(client, "{}", answer(board))?;
            client.shutdown(Shutdown::Write)
        });
        if let Err(error) = told {
            log::debug!("status: {error}");
            // Out of descriptors, say: not at once again.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // The thread waits for a client: this is the last one.
        let woken = std::os::unix::net::UnixStream::connect(&self.path).is_ok();
        let _ = fs::remove_file(&self.path);
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}
