package x86

var formsVector []Form
