//! What to send, which checkpoint to take, what to delete: functions on values.

use std::collections::{BTreeMap, BTreeSet};

use super::Which;
use super::backend::Listed;
use super::digest::LocalFile;
use super::manifest::{FileEntry, Manifest, ManifestName, object_generation, object_name};

/// What an upload does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The new manifest's files.
    pub(super) files: Vec<FileEntry>,
    /// Those of them whose content is to be sent: one for each object.
    pub(super) send: Vec<FileEntry>,
}

/// An object is reused if the newest manifest names it (so that nobody may delete it) and it is there, or if this server
/// has written it since (`fresh`).
pub(super) fn plan(local: &[LocalFile], newest: Option<&Manifest>, listed: &Listed, fresh: &BTreeSet<String>, generation: u64) -> Plan {
    let named = newest.into_iter().flat_map(|m| &m.files);
    let there = named.filter(|f| listed.get(&f.object) == Some(&f.size));
    let known = there.map(|f| ((f.digest, f.size), &f.object)).collect::<BTreeMap<_, _>>();
    let mut sent = BTreeSet::new();
    let mut plan = Plan { files: Vec::new(), send: Vec::new() };
    for LocalFile { name, size, digest } in local {
        let reused = known.get(&(*digest, *size));
        let object = reused.map_or_else(|| object_name(generation, digest), |object| (*object).clone());
        let entry = FileEntry { name: name.clone(), size: *size, digest: *digest, object };
        if reused.is_none() && !fresh.contains(&entry.object) && sent.insert(entry.object.clone()) {
            plan.send.push(entry.clone());
        }
        plan.files.push(entry);
    }
    plan
}

/// The newest checkpoint of those that are meant and were not tried in vain.
pub(super) fn choose(names: &[ManifestName], which: Which, tried: &BTreeSet<ManifestName>) -> Option<ManifestName> {
    let meant = |name: &&ManifestName| match which {
        Which::Latest => true,
        Which::Epoch(epoch) => name.epoch == epoch,
    };
    names.iter().filter(meant).filter(|name| !tried.contains(name)).max().copied()
}

/// The first object that a manifest names and that is not there in its full size.
pub(super) fn missing<'a>(manifest: &'a Manifest, listed: &Listed) -> Option<&'a FileEntry> {
    manifest.files.iter().find(|f| listed.get(&f.object) != Some(&f.size))
}

/// What to delete: first the manifests, then the objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Garbage {
    pub(super) manifests: Vec<ManifestName>,
    pub(super) objects: Vec<String>,
}

/// Keeps the newest `keep` whole checkpoints (at least one) and whatever is newer than the last of these; `None` is a
/// manifest that cannot be read. Objects stay that a kept manifest names, that are of an upload that goes on (`fresh`),
/// or of a later generation than our own.
pub(super) fn garbage(
    manifests: &BTreeMap<ManifestName, Option<Manifest>>,
    listed: &Listed,
    keep: usize,
    fresh: &BTreeSet<String>,
    generation: u64,
) -> Garbage {
    let newest_first = manifests.iter().rev();
    let whole = |m: &Option<Manifest>| m.as_ref().is_some_and(|m| missing(m, listed).is_none());
    let wholes = newest_first.filter(|(_, m)| whole(m)).map(|(name, _)| *name).take(keep.max(1)).collect::<Vec<_>>();
    // Without a single whole checkpoint, somebody may still want to look at what there is.
    let Some(newest) = wholes.first() else { return Garbage::default() };
    let oldest = if wholes.len() < keep { manifests.keys().next().unwrap_or(newest) } else { wholes.last().unwrap_or(newest) };
    let expired = manifests.range(..oldest).map(|(name, _)| *name).collect();
    let kept = manifests.range(oldest..).filter_map(|(_, m)| m.as_ref());
    let named = kept.flat_map(|m| &m.files).map(|f| &f.object).collect::<BTreeSet<_>>();
    let ours = |name: &&String| object_generation(name).is_some_and(|g| g <= generation);
    let objects = listed.keys().filter(ours).filter(|name| !named.contains(name) && !fresh.contains(*name)).cloned().collect();
    Garbage { manifests: expired, objects }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &str, content: u8) -> LocalFile {
        LocalFile { name: name.into(), size: u64::from(content), digest: [content; 32] }
    }

    /// An object of a generation with this content.
    fn object(generation: u64, content: u8) -> String {
        object_name(generation, &[content; 32])
    }

    fn manifest(files: &[(&str, u64, u8)]) -> Manifest {
        let entry = |(name, generation, content): &(&str, u64, u8)| FileEntry {
            name: (*name).into(),
            size: u64::from(*content),
            digest: [*content; 32],
            object: object(*generation, *content),
        };
        Manifest { files: files.iter().map(entry).collect(), ..Default::default() }
    }

    fn listed(objects: &[(u64, u8)]) -> Listed {
        objects.iter().map(|(generation, content)| (object(*generation, *content), u64::from(*content))).collect()
    }

    fn name(generation: u64, sequence: u64, epoch: u64) -> ManifestName {
        ManifestName { generation, sequence, epoch }
    }

    #[test]
    fn only_what_is_missing_is_sent() {
        let files = [local("CURRENT", 1), local("a.sst", 2), local("b.sst", 3)];
        let newest = manifest(&[("a.sst", 1, 2), ("old.sst", 1, 9)]);
        let none = BTreeSet::new();
        let fresh = BTreeSet::from([object(2, 3)]);
        let mut wrong_size = listed(&[(1, 2)]);
        wrong_size.insert(object(1, 2), 1);
        // newest manifest, listed objects, fresh objects: contents sent
        type Row<'a> = (Option<&'a Manifest>, Listed, &'a BTreeSet<String>, &'a [u8]);
        let table: [Row<'_>; 6] = [
            (None, listed(&[]), &none, &[1, 2, 3]),
            (Some(&newest), listed(&[(1, 2), (1, 9)]), &none, &[1, 3]),
            (Some(&newest), listed(&[(1, 9)]), &none, &[1, 2, 3]), // somebody deleted it
            (Some(&newest), wrong_size, &none, &[1, 2, 3]),        // it is not whole
            (Some(&newest), listed(&[(1, 2), (1, 3)]), &none, &[1, 3]), // there, but not named: it may be deleted any time
            (Some(&newest), listed(&[(1, 2)]), &fresh, &[1]),      // sent by the attempt before
        ];
        for (newest, listed, fresh, expected) in table {
            let plan = plan(&files, newest, &listed, fresh, 2);
            assert_eq!(plan.send.iter().map(|f| f.digest[0]).collect::<Vec<_>>(), expected, "{newest:?} {listed:?}");
            assert_eq!(plan.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["CURRENT", "a.sst", "b.sst"]);
            for file in &plan.send {
                assert_eq!(file.object, object(2, file.digest[0]));
            }
        }
    }

    #[test]
    fn equal_files_are_sent_once() {
        let plan = plan(&[local("x", 4), local("y", 4)], None, &listed(&[]), &BTreeSet::new(), 1);
        assert_eq!((plan.files.len(), plan.send.len()), (2, 1));
        assert_eq!(plan.files[0].object, plan.files[1].object);
    }

    #[test]
    fn the_newest_of_the_newest_generation_is_taken() {
        let (a, b, c) = (name(1, 1, 10), name(1, 2, 90), name(2, 1, 50));
        let all = [a, b, c];
        let table: [(Which, &[ManifestName], Option<ManifestName>); 7] = [
            (Which::Latest, &[], Some(c)), // not the highest epoch: its writer was displaced
            (Which::Latest, &[c], Some(b)),
            (Which::Latest, &[c, b], Some(a)),
            (Which::Latest, &[a, b, c], None),
            (Which::Epoch(90), &[], Some(b)),
            (Which::Epoch(90), &[b], None),
            (Which::Epoch(7), &[], None),
        ];
        for (which, tried, expected) in table {
            assert_eq!(choose(&all, which, &tried.iter().copied().collect()), expected, "{which:?} {tried:?}");
        }
        let repeated = [name(2, 1, 50), name(2, 2, 50)];
        assert_eq!(choose(&repeated, Which::Epoch(50), &BTreeSet::new()), Some(name(2, 2, 50)));
    }

    #[test]
    fn what_is_not_whole_is_noticed() {
        let manifest = manifest(&[("a", 1, 2), ("b", 1, 3)]);
        assert_eq!(missing(&manifest, &listed(&[(1, 2), (1, 3)])), None);
        assert_eq!(missing(&manifest, &listed(&[(1, 2)])).unwrap().name, "b");
    }

    #[test]
    fn only_what_nobody_needs_is_deleted() {
        let (old, middle, new) = (manifest(&[("a", 1, 1), ("b", 1, 2)]), manifest(&[("b", 1, 2), ("c", 1, 3)]), manifest(&[("c", 1, 3)]));
        let all = listed(&[(1, 1), (1, 2), (1, 3), (1, 4), (2, 5)]);
        let without_3 = listed(&[(1, 1), (1, 2), (1, 4), (2, 5)]);
        let without_any = listed(&[(1, 4)]);
        let fresh = BTreeSet::from([object(1, 4)]);
        let none = BTreeSet::new();
        let whole = [Some(old), Some(middle), Some(new)];
        let torn = [whole[0].clone(), whole[1].clone(), None];
        // manifests 1 to 3, objects, keep, fresh: manifests deleted, objects deleted
        type Row<'a> = (&'a [Option<Manifest>; 3], &'a Listed, usize, &'a BTreeSet<String>, &'a [u64], &'a [u8]);
        let table: [Row<'_>; 9] = [
            (&whole, &all, 1, &none, &[1, 2], &[1, 2, 4]),
            (&whole, &all, 0, &none, &[1, 2], &[1, 2, 4]), // never the last one
            (&whole, &all, 2, &none, &[1], &[1, 4]),
            (&whole, &all, 3, &none, &[], &[4]),
            (&whole, &all, 9, &none, &[], &[4]),
            (&whole, &all, 2, &fresh, &[1], &[1]),      // an upload goes on
            (&torn, &all, 1, &none, &[1], &[1, 4]),     // what cannot be read does not count
            (&whole, &without_3, 1, &none, &[], &[4]),  // nor what lacks an object
            (&whole, &without_any, 1, &none, &[], &[]), // nothing can be restored: touch nothing
        ];
        for (i, (manifests, listed, keep, fresh, expired, objects)) in table.into_iter().enumerate() {
            let manifests = (1..).zip(manifests).map(|(n, m)| (name(1, n, n * 10), m.clone())).collect();
            let garbage = garbage(&manifests, listed, keep, fresh, 1);
            assert_eq!(garbage.manifests.iter().map(|m| m.sequence).collect::<Vec<_>>(), expired, "row {i}");
            assert_eq!(garbage.objects, objects.iter().map(|c| object(1, *c)).collect::<Vec<_>>(), "row {i}");
        }
    }

    #[test]
    fn strange_objects_are_left_alone() {
        let manifests = BTreeMap::from([(name(2, 1, 1), Some(manifest(&[])))]);
        let mut listed = listed(&[(1, 1), (2, 2), (3, 3)]);
        listed.insert("objects/notes.txt".into(), 5);
        let garbage = garbage(&manifests, &listed, 1, &BTreeSet::new(), 2);
        assert_eq!(garbage.objects, [object(1, 1), object(2, 2)]);
    }
}
