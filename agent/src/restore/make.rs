//! How items are made: directories at once, symlinks and special files beside their place, files from blocks that are fetched.
//!
//! Source: ours; names in `target`, attributes in `attr`.

use std::sync::Arc;

use windlass_hal::tree::{Errno, Node};
use windlass_hal::volume::ItemKind;

use super::attr::{self, Known};
use super::compare::Reached;
use super::dir::{Dir, OPEN_AGAIN};
use super::fault::{Reason, RestoreFault};
use super::file::{File, FileName};
use super::inode_flags;
use super::temp::Temp;
use super::walk::Walk;
use crate::format::row::{ItemAttributes, RowPayload};
use crate::id::Lin;
use crate::table::lost::known;
use crate::table::source::Fetch;

impl<F: Fetch, N: Node> Walk<'_, F, N> {
    /// Makes or opens a directory; `whole` when everything in it is wanted. One that is there keeps its attributes unless it is
    /// wanted itself and may be replaced.
    pub(super) fn enter(
        &mut self,
        parent: &Arc<Dir<N>>,
        name: &[u8],
        item: &ItemAttributes,
        whole: bool,
    ) -> Option<Arc<Dir<N>>> {
        let made = parent.node().and_then(|parent| self.make_or_open(&parent, name));
        self.job.progress.items_done.add(1);
        match made {
            Ok((fresh, node)) => {
                if !fresh && self.is_repository(&*node) {
                    self.job.faults.add(parent.path_of(name), Reason::TheRepository);
                    return None;
                }
                let inherited = if fresh { parent.inherited } else { None };
                if fresh && inherited.is_none() {
                    attr::drop_inherited_acls(&*node);
                }
                if fresh {
                    let mut report = |reason| self.job.faults.add(parent.path_of(name), reason);
                    inode_flags::set_on_new(&*node, item, &mut report);
                }
                let replaces = whole && self.job.options.existing.replaces();
                let settled = fresh || replaces || self.is_restored(Known::of(&*node), item, whole);
                let item = settled.then(|| item.clone());
                Some(Dir::new(Some(Arc::clone(parent)), name.to_vec(), node, item, fresh, inherited))
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.job.faults.add(parent.path_of(name), Reason::InTheWay);
                None
            }
            Err(errno) => {
                self.job.system(parent.path_of(name), "make the directory", errno);
                None
            }
        }
    }

    /// Makes the directory `name`, also in the place of something else when that is to be replaced, or opens it; whether it is new.
    pub(super) fn make_or_open(&self, parent: &N, name: &[u8]) -> Result<(bool, Arc<N>), Errno> {
        let fresh = match self.target.with_room(0, || parent.make_dir(name, 0o700)) {
            Err(Errno::EXIST) => false,
            other => other.map(|()| true)?,
        };
        match parent.open_dir(name) {
            Err(Errno::NOTDIR | Errno::LOOP) if self.job.options.existing.replaces() => {
                self.target.with_room(0, || self.target.replace_by_directory(parent, name))?;
                Ok((true, Arc::new(parent.open_dir(name)?)))
            }
            opened => Ok((fresh, Arc::new(opened?))),
        }
    }

    /// Whether an open directory is the repository's.
    fn is_repository(&self, node: &N) -> bool {
        node.stat().is_ok_and(|stat| self.job.options.repository.is_own((stat.device, stat.inode)))
    }

    /// A symlink or special file: made beside, dressed, moved to its name.
    pub(super) fn special(&mut self, lin: Lin, item: &ItemAttributes, name: &FileName<N>) {
        let path = || name.dir.path_of(&name.name);
        let dir = match name.dir.node() {
            Ok(dir) => dir,
            Err(errno) => return self.job.system(path(), OPEN_AGAIN, errno),
        };
        if item.links > 1 {
            if self.names.link_kept(self.job, self.target, lin.inode, name) {
                return;
            }
            match self.target.link_stashed(lin.inode, false, &dir, &name.name, name.replace) {
                Ok(true) => return,
                Ok(false) => {}
                Err(errno) => return self.job.system(path(), "link to its other name", errno),
            }
        }
        let staging = self.target.staging();
        let temp = self.target.temp_name();
        let made = match (&item.payload, item.kind) {
            (RowPayload::Target(target), ItemKind::Symlink) => {
                self.target.with_room(0, || staging.symlink(temp.as_bytes(), target))
            }
            (_, ItemKind::Symlink) => {
                self.job.faults.add(path(), Reason::Rows("a symlink without a target"));
                return;
            }
            _ => self.target.with_room(0, || staging.make_special(temp.as_bytes(), item.kind, item.rdev)),
        };
        if let Err(errno) = made {
            self.job.system(path(), "make the item", errno);
            return;
        }
        attr::settle_name(staging, temp.as_bytes(), item, self.job.options.owners, &mut |reason| {
            self.job.faults.add(path(), reason)
        });
        if item.links > 1
            && let Err(errno) = self.target.stash_made(&temp, lin.inode)
        {
            self.job.system(path(), "keep for further names", errno);
        }
        match self.target.rename(&temp, &dir, &name.name, name.replace) {
            Ok(()) => {}
            Err(Errno::EXIST) => self.job.faults.add(path(), Reason::Exists),
            Err(errno) => self.job.system(path(), "give the item its name", errno),
        }
    }

    /// A file: another name of one that is there, or blocks to be fetched.
    pub(super) fn file(
        &mut self,
        lin: Lin,
        item: ItemAttributes,
        name: FileName<N>,
    ) -> Result<(), RestoreFault> {
        let mut name = name;
        if item.links > 1 {
            if self.names.link_kept(self.job, self.target, lin.inode, &name) {
                self.job.progress.items_done.add(1);
                return Ok(());
            }
            if let Some(known) = self.links.get(&lin) {
                match known.add_name(name) {
                    Ok(()) => return Ok(()),
                    Err(back) => name = back,
                }
            }
            let flags = inode_flags::has_late(&item);
            let linked = name
                .dir
                .node()
                .and_then(|dir| self.target.link_stashed(lin.inode, flags, &dir, &name.name, name.replace));
            match linked {
                Ok(true) => {
                    self.job.progress.items_done.add(1);
                    return Ok(());
                }
                Ok(false) => {}
                Err(errno) => {
                    self.job.system(name.dir.path_of(&name.name), "link to its other name", errno);
                    return Ok(());
                }
            }
        }
        if item.size >= self.target.part_bytes_min
            && let Some(temp) = self.target.take_part(lin.inode)
        {
            inode_flags::set_on_new(&temp.node, &item, &mut |reason| {
                self.job.faults.add(name.dir.path_of(&name.name), reason);
            });
            return self.over(lin, item, name, temp);
        }
        let several = item.links > 1;
        let file = File::new(lin, item, name);
        if several {
            self.links.insert(lin, Arc::clone(&file));
        }
        let planned = self.plan(&file);
        self.window.planned(file);
        planned
    }

    /// A file that is there, whole or in part: what of it differs.
    pub(super) fn over(
        &mut self,
        lin: Lin,
        item: ItemAttributes,
        name: FileName<N>,
        temp: Temp<N>,
    ) -> Result<(), RestoreFault> {
        let several = item.links > 1;
        let file = File::over(lin, item, name, temp);
        if several {
            self.links.insert(lin, Arc::clone(&file));
        }
        let planned = self.plan(&file);
        self.window.planned(file);
        planned
    }

    /// Takes a file's blocks into the window.
    fn plan(&mut self, file: &Arc<File<N>>) -> Result<(), RestoreFault> {
        if let RowPayload::Inline(bytes) = &file.item.payload {
            // Shorter contents end in zeros: the length is set when the file is finished.
            if bytes.len() as u64 == file.item.size {
                file.ends_in_data();
            }
            if file.compares() && self.has_inline(file, bytes) {
                return Ok(());
            }
            file.write(self.job, "write", bytes.len() as u64, |file| file.write_at(0, bytes));
            self.job.progress.bytes_done.add(bytes.len() as u64);
            return Ok(());
        }
        let (lookup, job, window) = (&mut *self.lookup, self.job, &mut self.window);
        let mut reached = Reached::default();
        let read = lookup.locations(file.lin, &file.item, &mut |row| {
            match file.compares() {
                true => window.row_over(job, file, &row, &mut reached),
                false => window.row(job, file, &row),
            }
            Ok(())
        });
        if file.compares() && read.is_ok() {
            window.end_over(file, reached);
        }
        if let Err(lost) = known(read)?
            && file.damage()
        {
            job.faults.add(file.path(), Reason::Lost(lost));
        }
        self.links.retain(|_, file| !file.is_done());
        Ok(())
    }

    /// Whether a file that is there has these contents; zeros behind them are seen to.
    fn has_inline(&mut self, file: &Arc<File<N>>, bytes: &[u8]) -> bool {
        self.window.zeros_over(file, bytes.len() as u64..file.item.size, false);
        let mut have = vec![0; bytes.len()];
        let is_equal = file.read(|node| node.read_at(0, &mut have)) == Ok(bytes.len()) && have == bytes;
        if is_equal {
            self.job.found(bytes.len() as u64);
        }
        is_equal
    }
}
