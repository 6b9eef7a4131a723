//! The reader over all files of a glob.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use millpond_common::{Delta, Error, Result, SqlState};

use super::Plan;
use super::discover::{self, Found, State};
use super::lines::TextFile;
use super::mark::{self, Mark, Marks};
use super::parquet::{self, ParquetFile};
use super::rows::Decoded;
use super::watch::Watch;
use crate::{Chunk, Encode, Poll, Position, Reader, Span};

/// How often files are looked for when there is nothing to read and nothing is told of them, and which part of the time that may take: many files are
/// looked for less often.
struct Pace {
    pause: Duration,
    share: u32,
}

/// While they grow,
const EAGER: Pace = Pace { pause: Duration::from_millis(1), share: 10 };
/// which is so long after the last growth.
const EAGER_FOR: Duration = Duration::from_secs(1);
/// At other times.
const CALM: Pace = Pace { pause: Duration::from_millis(25), share: 100 };
/// When a change in their directory is told at once; that of a file on another machine is not.
const TOLD: Pace = Pace { pause: Duration::from_millis(500), share: 100 };
/// Less is taken for this much.
const LOOK_COST_MIN: Duration = Duration::from_micros(10);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// What one call may sleep; and if the last one has found nothing, and it is told of changes.
const SLEEP_MAX: Duration = Duration::from_millis(50);
const TOLD_SLEEP_MAX: Duration = Duration::from_millis(250);
/// Files that stay open between their growths.
const OPEN_FILES_MAX: usize = 16;

/// Reads files one after the other, and when following all of them again and again.
pub struct FileReader {
    plan: Plan,
    marks: Marks,
    /// Where reading ends, if not with the files.
    until: Option<Marks>,
    /// The files with something to read, in the order of their names.
    ready: VecDeque<Found>,
    current: Option<(String, OpenFile)>,
    /// Files read to their present end, still open.
    idle: HashMap<String, ((u64, u64), OpenFile)>,
    /// What the file system said of each file when it was last read.
    seen: HashMap<String, State>,
    next_look: Instant,
    /// Not even if something is told: others may write to the same directory all the time.
    look_not_before: Instant,
    /// Tells what happens to the files.
    watch: Option<Watch>,
    /// A file is a link: what happens to it is told elsewhere.
    linked: bool,
    /// What looking costs. Something else on the machine can make it long once, only files again and again.
    look_cost: Duration,
    /// When a look found something the last time.
    grown: Option<Instant>,
    /// The last call has found nothing.
    rested: bool,
}

enum OpenFile {
    Text(Box<TextFile>),
    Parquet(Box<ParquetFile>),
}

impl FileReader {
    /// Opens what is to be read.
    pub fn new(plan: Plan, span: Span<'_>) -> Result<FileReader> {
        let marks = span.from.map_or(Ok(Marks::default()), Marks::decode)?;
        let mut reader = FileReader {
            plan,
            marks,
            until: span.until.map(Marks::decode).transpose()?,
            ready: VecDeque::new(),
            current: None,
            idle: HashMap::new(),
            seen: HashMap::new(),
            next_look: Instant::now(),
            look_not_before: Instant::now(),
            watch: None,
            linked: false,
            look_cost: LOOK_COST_MIN,
            grown: None,
            rested: false,
        };
        if reader.plan.follow {
            reader.look()?;
        } else {
            reader.list()?;
        }
        if let Some(until) = &reader.until {
            let reached = |path: &String, mark: &Mark| reader.marks.files.get(path).is_some_and(|m| m.offset >= mark.offset);
            let part = |path: &String| until.files.get(path).is_some_and(|mark| !reached(path, mark));
            reader.ready.retain(|f| part(&f.path) || until.through.as_ref().is_some_and(|through| f.path <= *through));
        }
        Ok(reader)
    }

    /// Reading once: the files after those that are done.
    fn list(&mut self) -> Result<()> {
        let files = discover::files(&self.plan.pattern)?;
        if files.is_empty() {
            return Err(discover::none(&self.plan.pattern));
        }
        if let Some((path, mark)) = self.marks.files.iter().next()
            && !files.iter().any(|f| f.path == *path)
        {
            return Err(Error::new(SqlState::DATA_EXCEPTION, format!("file \"{path}\" is gone")).with_detail(format!(
                "it was being read and had come to {} {}",
                self.unit(),
                mark.offset
            )));
        }
        let begun = self.marks.files.keys().next();
        let done = |path: &String| match (begun, &self.marks.through) {
            (Some(begun), _) => path < begun,
            (None, Some(through)) => path <= through,
            (None, None) => false,
        };
        let files = files.into_iter().filter(|f| !done(&f.path)).collect::<VecDeque<_>>();
        self.ready = files;
        Ok(())
    }

    /// Following: the files that have grown or appeared.
    fn look(&mut self) -> Result<()> {
        if !self.watch.as_mut().is_some_and(Watch::begin_look) {
            self.watch = Watch::of(&self.plan.pattern);
        }
        let started = Instant::now();
        for found in discover::files(&self.plan.pattern)? {
            if self.seen.get(&found.path) == Some(&found.state) {
                continue;
            }
            if let Encode::Parquet = self.plan.encode {
                match parquet::is_complete(&found.path) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(_) if is_gone(&found.path) => continue,
                    Err(e) => return Err(e),
                }
            } else if let Some(mark) = self.marks.files.get(&found.path)
                && found.state.bytes < mark.offset
            {
                return Err(mark::replaced(&found.path, "became shorter")
                    .with_detail(format!("{} bytes of it were read, now it has {}", mark.offset, found.state.bytes)));
            }
            self.ready.push_back(found);
        }
        let now = Instant::now();
        if !self.ready.is_empty() {
            self.grown = Some(now);
        }
        self.look_cost = (now - started).min(self.look_cost * 2).max(LOOK_COST_MIN);
        let pace = match self.watch {
            Some(_) if !self.linked => TOLD,
            _ if self.grown.is_some_and(|at| now - at < EAGER_FOR) => EAGER,
            _ => CALM,
        };
        let at = |pace: Pace| now + (self.look_cost * pace.share).max(pace.pause).min(LOOK_INTERVAL_MAX);
        (self.next_look, self.look_not_before) = (at(pace), at(EAGER));
        Ok(())
    }

    fn start(&mut self, found: Found) -> Result<()> {
        let Found { path, state } = found;
        if self.plan.follow && is_gone(&path) {
            return Ok(()); // deleted since it was looked for
        }
        let mark = self.marks.files.get(&path).copied().unwrap_or(Mark::START);
        let opened = match self.idle.remove(&path) {
            Some((identity, OpenFile::Text(text))) if identity == state.identity && mark.offset > 0 => {
                text.verify(&mark)?;
                OpenFile::Text(text)
            }
            _ => match self.plan.encode {
                Encode::Parquet => OpenFile::Parquet(Box::new(ParquetFile::open(&self.plan, &path, &mark, self.end_of(&path))?)),
                Encode::Csv { .. } | Encode::Json => OpenFile::Text(Box::new(TextFile::open(&self.plan, &path, &mark)?)),
            },
        };
        if self.seen.insert(path.clone(), state).is_none() {
            self.linked |= std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink());
        }
        self.current = Some((path, opened));
        Ok(())
    }

    /// The current file has nothing more for now.
    fn leave(&mut self) {
        let Some((path, file)) = self.current.take() else { return };
        if !self.plan.follow {
            self.marks.files.clear();
            self.marks.through = Some(path);
        } else if let OpenFile::Text(text) = file
            && let Some(state) = self.seen.get(&path)
        {
            if self.idle.len() >= OPEN_FILES_MAX {
                self.idle.clear();
            }
            self.idle.insert(path, (state.identity, OpenFile::Text(text)));
        }
    }

    fn chunk(&mut self, path: String, mark: Mark, decoded: Decoded) -> Result<Poll> {
        self.marks.files.insert(path, mark);
        self.rested = false;
        let Decoded { batch, bad_rows, rejected } = decoded;
        Ok(Poll::Chunk(Chunk { delta: Delta::insert(batch), end: self.marks.encode()?, bad_rows, rejected }))
    }

    /// Where reading of a file ends, if not with the file.
    fn end_of(&self, path: &str) -> Option<u64> {
        self.until.as_ref().and_then(|u| u.files.get(path)).map(|m| m.offset)
    }

    fn unit(&self) -> &'static str {
        match self.plan.encode {
            Encode::Parquet => "row",
            Encode::Csv { .. } | Encode::Json => "byte",
        }
    }
}

fn is_gone(path: &str) -> bool {
    std::fs::metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

impl OpenFile {
    fn read(&mut self, plan: &Plan, end: Option<u64>) -> Result<Option<(Decoded, Mark)>> {
        match self {
            OpenFile::Text(file) => match file.read(plan.batch_rows, !plan.follow, end)? {
                Some(decoded) => Ok(Some((decoded, file.mark()?))),
                None => Ok(None),
            },
            OpenFile::Parquet(file) => Ok(file.read()?.map(|decoded| (decoded, file.mark()))),
        }
    }
}

impl Reader for FileReader {
    fn next(&mut self) -> Result<Poll> {
        loop {
            if let Some((path, mut file)) = self.current.take() {
                let read = file.read(&self.plan, self.end_of(&path))?;
                self.current = Some((path.clone(), file));
                if let Some((decoded, mark)) = read {
                    return self.chunk(path, mark, decoded);
                }
                self.leave();
            } else if let Some(found) = self.ready.pop_front() {
                self.start(found)?;
            } else if !self.plan.follow || self.until.is_some() {
                return Ok(Poll::End);
            } else {
                let wait = self.next_look.saturating_duration_since(Instant::now());
                let sleep_max = if self.rested && self.watch.is_some() { TOLD_SLEEP_MAX } else { SLEEP_MAX };
                self.rested = true;
                let told = match &self.watch {
                    Some(watch) => watch.wait(wait.min(sleep_max)),
                    None => {
                        std::thread::sleep(wait.min(sleep_max));
                        false
                    }
                };
                if told {
                    std::thread::sleep(self.look_not_before.saturating_duration_since(Instant::now()).min(SLEEP_MAX));
                } else if wait > sleep_max {
                    return Ok(Poll::Idle);
                }
                self.look()?;
                if self.ready.is_empty() {
                    return Ok(Poll::Idle);
                }
            }
        }
    }

    fn describe(&self, position: &Position) -> String {
        match Marks::decode(position) {
            Ok(marks) => marks.describe(self.unit()),
            Err(e) => e.message().to_string(),
        }
    }
}
