package x86

var formsX87 []Form
