package acpi
