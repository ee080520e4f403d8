-- Phones may report the serial number of another; `serial` is what commands call a phone, this is what it says.
alter table devices add column reported_serial text;
