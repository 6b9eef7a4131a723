//! Tells followers when something happens in the directory of their files, so that they need not look all the time: Linux's
//! inotify, one instance and one thread for all. It says nothing of files behind links and of what other machines do.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// What happens within this time is told together.
const PAUSE: Duration = Duration::from_millis(1);
/// For some hundred events.
const BUFFER_BYTES: usize = 16 << 10;

/// One follower's watch of a directory.
pub struct Watch {
    place: Arc<Place>,
    number: i32,
    /// What had happened when it last looked.
    seen: u64,
}

/// A directory that somebody watches.
#[derive(Default)]
struct Place {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts what has happened.
    events: u64,
    /// The directory is not there any more, or not under its name.
    lost: bool,
}

impl Watch {
    /// Watches the directory of the files that a pattern names; `None` if these are several, or it cannot be watched.
    pub fn of(pattern: &str) -> Option<Watch> {
        let directory = Path::new(pattern).parent()?.to_str().filter(|d| !d.contains(['*', '?', '[']))?;
        let (place, number) = watcher()?.add(if directory.is_empty() { "." } else { directory })?;
        let seen = lock(&place.state).events;
        Some(Watch { place, number, seen })
    }

    /// The follower is about to look, and will see what has happened until now. `false`: it will be told nothing any more.
    pub fn begin_look(&mut self) -> bool {
        let state = lock(&self.place.state);
        self.seen = state.events;
        !state.lost
    }

    /// Waits until something has happened since the last look, but no longer than this. Returns whether it has.
    pub fn wait(&self, timeout: Duration) -> bool {
        let nothing = |state: &mut State| state.events == self.seen;
        let waited = self.place.changed.wait_timeout_while(lock(&self.place.state), timeout, nothing);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(watcher) = watcher() {
            watcher.remove(self.number, &self.place);
        }
    }
}

impl Place {
    fn tell(&self, lost: bool) {
        let mut state = lock(&self.state);
        state.events += 1;
        state.lost |= lost;
        self.changed.notify_all();
    }
}

/// Nobody panics while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Watcher {
    inotify: OwnedFd,
    places: Mutex<HashMap<i32, Arc<Place>>>,
}

/// The one of this process; `None` if the system has no more of them.
fn watcher() -> Option<&'static Arc<Watcher>> {
    static WATCHER: OnceLock<Option<Arc<Watcher>>> = OnceLock::new();
    let start = || {
        let watcher = Arc::new(Watcher { inotify: inotify::init(CreateFlags::CLOEXEC).ok()?, places: Mutex::default() });
        let runs = Arc::clone(&watcher);
        std::thread::Builder::new().name("watch-files".into()).spawn(move || runs.run()).ok()?;
        Some(watcher)
    };
    WATCHER.get_or_init(start).as_ref()
}

impl Watcher {
    fn add(&self, directory: &str) -> Option<(Arc<Place>, i32)> {
        let files = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB | WatchFlags::MOVE;
        let directories = WatchFlags::ONLYDIR | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        let mut places = lock(&self.places);
        // The same directory has the same number.
        let number = inotify::add_watch(&self.inotify, directory, files | directories).ok()?;
        Some((Arc::clone(places.entry(number).or_default()), number))
    }

    fn remove(&self, number: i32, place: &Arc<Place>) {
        let mut places = lock(&self.places);
        let known = places.get(&number).is_some_and(|known| Arc::ptr_eq(known, place));
        // The caller has one, and this map.
        if known && Arc::strong_count(place) <= 2 {
            places.remove(&number);
            // If it fails, the directory is gone.
            let _ = inotify::remove_watch(&self.inotify, number);
        }
    }

    fn run(&self) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            let (number, what) = match events.next() {
                Ok(event) => (event.wd(), event.events()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
            };
            let lost = what.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT);
            let mut places = lock(&self.places);
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                places.values().for_each(|place| place.tell(false));
            } else if lost {
                let _ = inotify::remove_watch(&self.inotify, number);
                let _ = places.remove(&number).map(|place| place.tell(true));
            } else if let Some(place) = places.get(&number) {
                place.tell(false);
            }
            drop(places);
            if events.is_buffer_empty() {
                std::thread::sleep(PAUSE);
            }
        }
        lock(&self.places).drain().for_each(|(_, place)| place.tell(true));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_happens_in_a_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        let pattern = format!("{}/*.csv", inside.display());
        let (mut one, mut two) = (Watch::of(&pattern).unwrap(), Watch::of(&pattern).unwrap());
        assert!(one.begin_look() && two.begin_look());
        assert!(!one.wait(Duration::from_millis(1)));
        std::fs::write(inside.join("a.csv"), "1\n").unwrap();
        assert!(one.wait(LONG) && two.wait(LONG));
        drop(two);
        assert!(one.begin_look());
        std::fs::rename(inside.join("a.csv"), inside.join("b.csv")).unwrap();
        assert!(one.wait(LONG), "the directory is watched as long as somebody wants it");
        std::fs::rename(&inside, dir.path().join("out")).unwrap();
        while one.begin_look() {
            assert!(one.wait(LONG), "that the directory has gone is told");
        }
        assert!(Watch::of(&pattern).is_none(), "there is no such directory");
        assert!(Watch::of("/tmp/*/a.csv").is_none(), "several directories are not watched");
    }
}
