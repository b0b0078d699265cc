//! Returns freed memory to the operating system.

/// Returns all unused whole pages of the heap to the operating system.
///
/// By itself the GNU C library returns only free memory at the end of its heap. One live block above a million freed
/// ones keeps all of them resident. The call takes milliseconds, so it is made only after a storm of temps. No other C
/// library is known to need it.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Drops the mapped pages of the program's code, most of which only the start needed. The kernel maps pages again when
/// they are used, from its cache of the file. So an idle watcher is small.
#[cfg(target_os = "linux")]
pub fn unmap_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else {
        return;
    };
    for (start, length) in code(&maps) {
        let at = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: no process writes to these pages, and none of them was changed since they were mapped, so the file
        // still has their content.
        unsafe {
            libc::madvise(at, length, libc::MADV_DONTNEED);
        }
    }
}

/// The system takes unused pages of the program's code back by itself.
#[cfg(target_os = "macos")]
pub fn unmap_code() {}

/// Returns the address and the length of each mapping of a file that can be executed and not written to, and has no
/// changed page. A debugger may have changed one.
#[cfg(target_os = "linux")]
fn code(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut last = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next(), words.nth(2)) {
            (Some(range), Some("r-xp"), Some(inode)) if inode != "0" => last = parse_range(range),
            (Some("Anonymous:"), Some("0"), _) => found.extend(last.take()),
            (Some("Anonymous:"), ..) => last = None,
            _ => {}
        }
    }
    found
}

#[cfg(target_os = "linux")]
fn parse_range(range: &str) -> Option<(usize, usize)> {
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let start = address(start)?;
    Some((start, address(end)?.checked_sub(start)?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_unchanged_code_of_files_is_dropped() {
        let map = |mode: &str, inode: u32, anonymous: u32| {
            format!(
                "1000-3000 {mode} 00001000 fe:00 {inode} /bin/x\nSize: 8 kB\nRss: 8 kB\nAnonymous: {anonymous} kB\n\
                 LazyFree: 0 kB\nVmFlags: rd ex\n"
            )
        };
        for (mode, inode, anonymous, is_code) in [
            ("r-xp", 7, 0, true),
            ("r-xp", 7, 4, false),
            ("r-xp", 0, 0, false),
            ("r--p", 7, 0, false),
            ("rw-p", 7, 0, false),
            ("rwxp", 7, 0, false),
            ("r-xs", 7, 0, false),
        ] {
            let want = if is_code {
                vec![(0x1000, 0x2000)]
            } else {
                Vec::new()
            };
            let maps = map(mode, inode, anonymous);
            assert_eq!(code(&maps), want, "{maps}");
            let after_another = map("r-xp", 7, 4) + &maps;
            assert_eq!(code(&after_another), want, "{after_another}");
        }
    }

    #[test]
    fn the_code_of_this_program_can_be_dropped() {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(!code(&maps).is_empty());
        unmap_code();
        assert_eq!(parse_range("10-1f"), Some((0x10, 0xf)));
    }
}
