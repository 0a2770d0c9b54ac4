//! Failures of the files of the real binary: full, broken and removed disks, and damaged or
//! large databases.

mod broken;
mod damage;
mod full;
mod large;
mod log;
