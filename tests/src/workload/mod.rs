//! Work that clients do, with what must hold afterwards.

