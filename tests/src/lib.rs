//! End-to-end tests of vslice; the tests themselves are the targets beside this file.
