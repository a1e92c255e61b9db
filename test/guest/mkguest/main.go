// Mkguest builds the Linux guest of package guest and prints where its files are.
//
//	go run ./test/guest/mkguest [-dir DIR]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"refault/test/guest"
)

func main() {
	dir := flag.String("dir", guest.Dir, "where to build and keep it")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "mkguest: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	img, err := guest.Build(ctx, *dir, func(line string) { fmt.Fprintln(os.Stderr, "guest:", line) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "mkguest:", err)
		os.Exit(2)
	}
	fmt.Printf("kernel        %s\ninitrd        %s\ncloud kernel  %s\ncloud initrd  %s\ndisk          %s\nprograms      %s\n",
		img.Kernel, img.Initrd, img.CloudKernel, img.CloudInitrd, img.Disk, img.Programs)
	for _, p := range img.Packages {
		fmt.Printf("package       %v %s\n", p, p.SHA256)
	}
}
