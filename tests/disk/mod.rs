//! What befalls the files of the real binary: disks that are full, broken or taken away, and databases that are damaged or
//! large.

mod broken;
mod damage;
mod full;
mod large;
mod log;
